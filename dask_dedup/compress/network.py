"""The networks of MSE and SNIP: one encoder for all modalities, GELU between linear layers.

The authors' file names tell a two-layer network with GELU and an output of 128, the default depth
here; width and everything else is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dask_dedup.compress.base import ModelFacts, check_rows, check_tensors
from dask_dedup.compress.settings import load_network_settings
from dask_dedup.compress.vectors import prepare_block, unit_rows
from dask_dedup.errors import InputError, SettingsError

__all__ = ["NetworkCompressor", "build_network", "encode"]

_BLOCK_ROWS = 8192


def build_network(dim_in: int, dim_out: int, width: int, depth: int) -> nn.Sequential:
    """Return ``depth`` linear layers, GELU between them, hidden ones of ``width`` units.

    Weights are drawn from torch's current random state, on the CPU.
    """
    dims = [dim_in, *[width] * (depth - 1), dim_out]
    layers: list[nn.Module] = []
    for before, after in pairwise(dims):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def encode(network: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Compress rows of unit length to rows of unit length.

    Coordinates are about 1/√dim large, and the layers' initial weights are meant for ones about 1:
    rows are multiplied by √dim first.

    Parameters
    ----------
    rows : float32 tensor, shape (n, dim_in)

    Returns
    -------
    float32 tensor, shape (n, dim_out)
    """
    return unit_rows(network(rows * math.sqrt(rows.shape[1])))


@dataclass(frozen=True)
class NetworkCompressor:
    """A trained encoder, of kind mse or snip; see `dask_dedup.compress.base.Compressor`.

    Attributes
    ----------
    facts : ModelFacts
    network : nn.Sequential
        On ``device``.
    device : str
    """

    facts: ModelFacts
    network: nn.Sequential
    device: str = "cpu"

    @classmethod
    def from_tensors(
        cls, facts: ModelFacts, tensors: Mapping[str, np.ndarray], where: str, device: str = "cpu"
    ) -> NetworkCompressor:
        """Make the model of a file's tensors, which are checked against its settings."""
        try:
            settings = load_network_settings(facts.settings)
        except SettingsError as error:
            header = Path(where).with_name("model.json")
            raise InputError(f"{header}: damaged header ({error})") from error
        with torch.device("meta"):  # shapes alone: no memory, no random numbers
            network = build_network(facts.dim_in, facts.dim_out, settings.width, settings.depth)
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        check_tensors(tensors, shapes, where)
        state = {name: torch.from_numpy(array) for name, array in tensors.items()}
        network.load_state_dict(state, assign=True)
        return cls(facts, network.to(device).eval(), device)

    @property
    def kind(self) -> str:
        """``mse`` or ``snip``."""
        return self.facts.kind

    @property
    def dim_in(self) -> int:
        """Dimension of the rows that it takes."""
        return self.facts.dim_in

    @property
    def dim_out(self) -> int:
        """Dimension of the rows that it gives."""
        return self.facts.dim_out

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the encoder's weights."""
        return {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}

    @torch.inference_mode()
    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Encode rows, a block at a time."""
        check_rows(rows, self.facts)
        out = np.empty((len(rows), self.dim_out), np.float32)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = prepare_block(rows[start : start + _BLOCK_ROWS])
            image = encode(
                self.network, (block.rows / block.lengths[:, None]).to(self.device)
            ).cpu()
            image[torch.from_numpy(block.reason != 0)] = 0.0
            out[start : start + len(image)] = image.numpy()
        return out
