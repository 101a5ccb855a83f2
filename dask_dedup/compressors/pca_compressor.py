"""PCA as a compressor: one linear map, no mean removed.

The mean stays, unlike in the PCA that filters the join's candidates (`vectors.pca`): cosines, not
distances from a mean, are what the compressed rows must keep, and one map has to serve images and
texts alike, whose means differ. These are the axes that keep most of the rows' squared length, so
that products of rows, and the cosines with them, change least. For images and texts together they
are the images' axes: what an image has no part in changes no product with an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from dask_dedup.compressors.base import ByHeader, ModelHeader, check_rows, check_tensors
from dask_dedup.vectors.pca import leading_axes
from dask_dedup.vectors.unit import prepare_block, unit_rows

__all__ = ["PcaCompressor", "fit_uncentred_axes"]

_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class PcaCompressor(ByHeader):
    """A fitted PCA; see `dask_dedup.compressors.base.Compressor`.

    Attributes
    ----------
    header : ModelHeader
    axes : float32 array, shape (dim_in, dim_out)
        Orthonormal columns, by falling share of the squared length.
    device : str
    """

    header: ModelHeader
    axes: np.ndarray
    device: str = "cpu"

    @classmethod
    def from_tensors(
        cls, header: ModelHeader, tensors: Mapping[str, np.ndarray], where: str, device: str = "cpu"
    ) -> PcaCompressor:
        """Make the model of a file's tensors, which are checked."""
        check_tensors(tensors, {"axes": (header.dim_in, header.dim_out)}, where)
        return cls(header, tensors["axes"], device)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the axes."""
        return {"axes": self.axes}

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Project rows on the axes; at unit length, as every compressor gives them."""
        check_rows(rows, self.header)
        axes = torch.from_numpy(self.axes).to(self.device)
        out = np.empty((len(rows), self.dim_out), np.float32)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = prepare_block(rows[start : start + _BLOCK_ROWS])
            image = torch.mm((block.rows / block.lengths[:, None]).to(self.device), axes)
            out[start : start + len(image)] = unit_rows(image).cpu().numpy()
        return out


def fit_uncentred_axes(
    sample: np.ndarray, dim: int, left_out: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Find the axes that keep most of the rows' squared length.

    Parameters
    ----------
    sample : float32 array, shape (n, dim_in)
        Rows at unit length.
    dim : int
        Axes to keep; fewer than ``dim_in``, or as many.
    left_out : bool array, shape (n,), optional
        Rows that play no part.

    Returns
    -------
    axes : float32 array, shape (dim_in, dim)
    share : float
        Of the rows' squared length that the axes keep.
    """
    moment = torch.zeros((sample.shape[1],) * 2, dtype=torch.float64)
    for start in range(0, len(sample), _BLOCK_ROWS):
        block = sample[start : start + _BLOCK_ROWS]
        if left_out is not None:
            block = block[~left_out[start : start + _BLOCK_ROWS]]
        wide = torch.from_numpy(block).double()
        moment += wide.T @ wide
    axes, share = leading_axes(moment, dim)
    return axes.astype(np.float32), share
