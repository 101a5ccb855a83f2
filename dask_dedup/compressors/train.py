"""Training a network on a sample: a kernel on arrays, the same twice from one seed and device.

1. Rows (of each modality) are split into training and validation rows by the caller.
2. An epoch goes over the training rows once, in a new order, in batches; a last, smaller batch is
   left out, unless it is the only one. With two modalities a batch holds the rows' images and
   their texts, through the one encoder: the subset of SNIP, whose loss is the mean of four, from
   images or texts to images or texts.
3. The validation loss is taken over fixed batches of the same size after each epoch. The weights
   of the best epoch are kept; after ``patience`` epochs without a better one training stops.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from dask_dedup.compressors.losses import Side, clip_loss, mse_loss, snip_hard_loss, snip_soft_loss
from dask_dedup.compressors.network import Network, build_network
from dask_dedup.compressors.network_settings import NetworkSettings
from dask_dedup.compressors.pca_compressor import fit_uncentred_axes
from dask_dedup.errors import SettingsError
from dask_dedup.vectors.device import says_when_full
from dask_dedup.vectors.unit import unit_rows

__all__ = ["Trained", "train_network"]


class Trained(NamedTuple):
    """A trained encoder and how it came about.

    Attributes
    ----------
    network : Network
        On the device it was trained on.
    statistics : dict
        ``best_epoch``, ``validation_loss`` (at it), ``stopped_early``, ``curve``: for each epoch
        ``epoch``, ``learning_rate`` (at its end), ``train_loss`` (mean over its batches),
        ``validation_loss``. Epoch 0 is the network before training.
    """

    network: Network
    statistics: dict[str, Any]


@says_when_full
def train_network(
    samples: Sequence[np.ndarray],
    held_out: np.ndarray,
    kind: str,
    dim: int,
    settings: NetworkSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_rows: Callable[[int], None] | None = None,
) -> Trained:
    """Train an encoder, and for ``mse`` a decoder with it, which is not kept.

    Parameters
    ----------
    samples : sequence of one or two float32 arrays, shape (n, dim_in)
        Rows at unit length: of one modality, or images and their texts.
    held_out : bool array, shape (n,)
        The rows of the validation split; at least two, and at least two others.
    kind : str
        ``mse`` or ``snip``.
    dim : int
        Dimension of the compressed rows.
    settings : NetworkSettings
    seed : int
        Of the initial weights and of the order of the rows.
    device : str
    on_rows : callable, optional
        Called with the number of rows of each batch.

    Raises
    ------
    SettingsError
        The loss is no number any more: the learning rate is too high.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trainer = _Trainer(samples, held_out, kind, dim, settings, device)
            return trainer.run(on_rows or (lambda rows: None))
    finally:
        torch.set_num_threads(threads)


class _Trainer:
    def __init__(
        self,
        samples: Sequence[np.ndarray],
        held_out: np.ndarray,
        kind: str,
        dim: int,
        settings: NetworkSettings,
        device: str,
    ) -> None:
        self.samples = [torch.from_numpy(sample) for sample in samples]
        self.training = torch.from_numpy(np.flatnonzero(~held_out))
        self.validation = torch.from_numpy(np.flatnonzero(held_out))
        self.validation = self.validation[torch.randperm(len(self.validation))]
        self.kind, self.settings, self.device = kind, settings, device
        dim_in = samples[0].shape[1]
        self.network = build_network(dim_in, dim, settings)
        self.decoder = build_network(dim, dim_in, settings) if kind == "mse" else None
        if settings.start == "pca":
            axes, _ = fit_uncentred_axes(samples[0], dim, held_out)
            self.network.start_from(axes)
            if self.decoder is not None:
                self.decoder.start_from(axes.T)
        for module in (self.network, self.decoder):
            if module is not None:
                module.to(device)
        parameters = [*self.network.parameters()]
        if self.decoder is not None:
            parameters += self.decoder.parameters()
        self.batch = min(settings.batch, len(self.training))
        self.batches = len(self.training) // self.batch
        self.optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
        total = self.batches * settings.epochs
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: (1 + math.cos(math.pi * min(step / total, 1))) / 2
        )

    def run(self, on_rows: Callable[[int], None]) -> Trained:
        best = self.validate()
        weights, best_epoch = copy.deepcopy(self.network.state_dict()), 0
        curve: list[dict[str, Any]] = [
            {
                "epoch": 0,
                "learning_rate": self.settings.learning_rate,
                "train_loss": None,
                "validation_loss": best,
            }
        ]
        epoch = 0
        for epoch in range(1, self.settings.epochs + 1):
            train_loss = self.train_epoch(on_rows)
            loss = self.validate()
            if not math.isfinite(train_loss + loss):
                raise SettingsError(
                    f"training diverged in epoch {epoch}: the loss is {loss}. Try a learning "
                    f"rate below {self.settings.learning_rate:g}."
                )
            rate = self.schedule.get_last_lr()[0]
            entry = (epoch, rate, train_loss, loss)
            curve.append(dict(zip(curve[0], entry, strict=True)))
            if loss < best:
                best, best_epoch = loss, epoch
                weights = copy.deepcopy(self.network.state_dict())
            elif epoch - best_epoch >= self.settings.patience:
                break
        self.network.load_state_dict(weights)
        return Trained(
            self.network.eval(),
            {
                "best_epoch": best_epoch,
                "validation_loss": best,
                "stopped_early": epoch < self.settings.epochs,
                "curve": curve,
            },
        )

    def train_epoch(self, on_rows: Callable[[int], None]) -> float:
        """Go over the training rows once; return the mean loss of the batches."""
        self.network.train()
        order = self.training[torch.randperm(len(self.training))]
        total = torch.zeros((), device=self.device)
        for chosen in order[: self.batches * self.batch].split(self.batch):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(chosen)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach()
            on_rows(len(chosen))
        return float(total) / self.batches

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean loss of the validation rows, in batches as large as in training."""
        self.network.eval()
        batches = self.validation.split(min(self.batch, len(self.validation)))
        # The last one is smaller, and SNIP's losses grow with the subset: weighted, not left out.
        total = sum(float(self.loss(chosen)) * len(chosen) for chosen in batches)
        return total / len(self.validation)

    def loss(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the loss of some rows, in all modalities."""
        raw = torch.cat([sample[chosen] for sample in self.samples]).to(self.device)
        code = unit_rows(self.network(raw))
        if self.decoder is not None:
            # From the unit row, which is all that is kept: with a length of its own at hand, the
            # code's angles are left to chance, and neighbours with them.
            loss = mse_loss(self.decoder(code), raw)
        count, temperature = len(chosen), self.settings.temperature
        sides = [Side(*pair) for pair in zip(raw.split(count), code.split(count), strict=True)]
        if self.decoder is None:
            measure = snip_hard_loss if self.settings.hard else snip_soft_loss
            losses = [measure(*sides_of_two, temperature) for sides_of_two in product(sides, sides)]
            loss = torch.stack(losses).mean()
        if self.settings.clip_weight:
            images, texts = sides
            contrast = clip_loss(images.compressed, texts.compressed, temperature)
            loss = loss + self.settings.clip_weight * contrast
        return loss
