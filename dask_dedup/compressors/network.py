"""The networks of MSE and SNIP: one encoder for all modalities, GELU between linear layers.

The authors' file names speak of a two-layer network with GELU and an output of 128, the default
depth and dimension here. Width is ours, and so is the linear map beside the layers, which starts as
the PCA's axes while the last layer starts at zero: training departs from what the PCA does, and its
best epoch is never worse than that in the loss on the validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from dask_dedup.compressors.base import ByHeader, ModelHeader, check_rows, check_tensors
from dask_dedup.compressors.network_settings import NetworkSettings, load_network_settings
from dask_dedup.errors import InputError, SettingsError
from dask_dedup.vectors.unit import prepare_block, unit_rows

__all__ = ["Network", "NetworkCompressor", "build_network"]

_BLOCK_ROWS = 8192


class Network(nn.Module):
    """Linear layers with GELU between them, and a linear map beside them where there is one.

    Attributes
    ----------
    layers : nn.Sequential
        ``depth`` linear layers, hidden ones of ``width`` units.
    beside : nn.Linear or None
        Added to what the layers give; no bias.
    """

    def __init__(self, dim_in: int, dim_out: int, width: int, depth: int, beside: bool) -> None:
        super().__init__()
        dims = [dim_in, *[width] * (depth - 1), dim_out]
        layers: list[nn.Module] = []
        for before, after in pairwise(dims):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.beside = nn.Linear(dim_in, dim_out, bias=False) if beside else None

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map rows: shape (n, dim_in) to (n, dim_out), of any length."""
        image = self.layers(rows)
        return image if self.beside is None else image + self.beside(rows)

    def start_from(self, axes: np.ndarray) -> None:
        """Make the network the linear map ``rows @ axes``, from which training departs.

        Parameters
        ----------
        axes : float32 array, shape (dim_in, dim_out)
        """
        if self.beside is None:
            raise ValueError("a network without a linear map beside its layers cannot start as one")
        with torch.no_grad():
            self.beside.weight.copy_(torch.from_numpy(np.ascontiguousarray(axes.T)))
            for parameter in self.layers[-1].parameters():
                parameter.zero_()


def build_network(dim_in: int, dim_out: int, settings: NetworkSettings) -> Network:
    """Return an untrained network; its weights are drawn from torch's current random state."""
    return Network(dim_in, dim_out, settings.width, settings.depth, settings.start == "pca")


@dataclass(frozen=True)
class NetworkCompressor(ByHeader):
    """A trained encoder, of kind mse or snip; see `dask_dedup.compressors.base.Compressor`.

    Attributes
    ----------
    header : ModelHeader
    network : Network
        On ``device``.
    device : str
    """

    header: ModelHeader
    network: Network
    device: str = "cpu"

    @classmethod
    def from_tensors(
        cls, header: ModelHeader, tensors: Mapping[str, np.ndarray], where: str, device: str = "cpu"
    ) -> NetworkCompressor:
        """Make the model of a file's tensors, which are checked against its settings."""
        try:
            settings = load_network_settings(header.settings)
        except SettingsError as error:
            header_path = where.replace("model.safetensors", "model.json")
            raise InputError(f"{header_path}: damaged header ({error})") from error
        with torch.device("meta"):  # shapes alone: no memory, no random numbers
            network = build_network(header.dim_in, header.dim_out, settings)
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        check_tensors(tensors, shapes, where)
        state = {name: torch.from_numpy(array) for name, array in tensors.items()}
        network.load_state_dict(state, assign=True)
        return cls(header, network.to(device).eval(), device)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the encoder's weights."""
        return {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}

    @torch.inference_mode()
    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Encode rows, a block at a time."""
        check_rows(rows, self.header)
        out = np.empty((len(rows), self.dim_out), np.float32)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = prepare_block(rows[start : start + _BLOCK_ROWS])
            unit = (block.rows / block.lengths[:, None]).to(self.device)
            image = unit_rows(self.network(unit)).cpu()
            image[torch.from_numpy(block.reason != 0)] = 0.0
            out[start : start + len(image)] = image.numpy()
        return out
