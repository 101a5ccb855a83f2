"""PCA with the length of what it leaves out: the lossless filter.

For an orthonormal projection P and a shift m the map ``x -> (P(x - m), |(I - P'P)(x - m)|)`` never
lengthens a distance. Two unit vectors of cosine c are ``sqrt(2 - 2c)`` apart, so a pair whose
images are further apart than that has a lower cosine, and no pair at c or above is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dask_dedup.compress.vectors import VectorBlock
from dask_dedup.errors import InputError
from dask_dedup.io.store import write_aside

__all__ = ["COORDINATE_ERROR", "PcaModel", "filter_radius", "fit_axes", "load_pca", "save_pca"]

_KIND = "dask_dedup.pca.1"

#: How far a stored image (float16 coordinates of a float32 product) may lie from the exact one:
#: 2^-11 of a length of at most 2 for the coordinates, and for the length left out, whose square
#: is a difference of numbers near 1 known to 1e-6, at most sqrt(1e-6). Tests look for worse.
COORDINATE_ERROR = 2.0e-3


@dataclass(frozen=True)
class PcaModel:
    """A fitted PCA.

    Attributes
    ----------
    mean : float64 array, shape (dim,)
    axes : float64 array, shape (dim, kept)
        Orthonormal columns, by falling variance.
    variance_share : float
        Share of the sample's variance that the axes keep.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance_share: float

    @property
    def kept(self) -> int:
        """Number of axes."""
        return self.axes.shape[1]

    def transform(self, block: VectorBlock, out: torch.Tensor | None = None) -> torch.Tensor:
        """Project rows at unit length; the last coordinate is the length of what is left out.

        Parameters
        ----------
        block : VectorBlock
            n rows of any length.
        out : float32 tensor, shape (n, kept + 1), optional

        Returns
        -------
        float32 tensor, shape (n, kept + 1)
        """
        if out is None:
            out = torch.empty(len(block.rows), self.kept + 1)
        axes = torch.from_numpy(self.axes.astype(np.float32))
        mean = torch.from_numpy(self.mean.astype(np.float32))
        shift = torch.from_numpy((self.mean @ self.axes).astype(np.float32))
        inverse = 1.0 / block.lengths
        image = torch.mm(block.rows, axes)
        image.mul_(inverse[:, None]).sub_(shift)
        # |x - m|^2 = 1 - 2 x.m + |m|^2 for a unit x; what the axes keep is taken off.
        square = 1.0 + float(self.mean @ self.mean) - 2.0 * torch.mv(block.rows, mean) * inverse
        square -= torch.linalg.vector_norm(image, dim=1).square_()
        out[:, : self.kept] = image
        out[:, self.kept] = square.clamp_(min=0.0).sqrt_()
        return out

    def transform_exactly(self, rows: np.ndarray) -> np.ndarray:
        """Project float32 rows of any length in float64, alike in any block: shape (n, kept)."""
        return _project_rows(rows, self.mean, self.axes)


@numba.njit(cache=True, nogil=True)
def _project_rows(rows, mean, axes):
    image = np.zeros((rows.shape[0], axes.shape[1]))
    for i in range(rows.shape[0]):
        square = 0.0
        for j in range(rows.shape[1]):
            square += np.float64(rows[i, j]) ** 2
        inverse = 1.0 / np.sqrt(square) if square > 0 else 0.0
        for j in range(rows.shape[1]):
            value = rows[i, j] * inverse - mean[j]
            for k in range(axes.shape[1]):
                image[i, k] += value * axes[j, k]
    return image


def filter_radius(threshold: float) -> float:
    """Return the distance between images above which a pair's cosine is below ``threshold``."""
    return float(np.sqrt(max(0.0, 2.0 - 2.0 * threshold)) + 2.0 * COORDINATE_ERROR)


def fit_axes(sample: torch.Tensor, dim: int) -> PcaModel:
    """Fit the axes of largest variance.

    Parameters
    ----------
    sample : float32 tensor, shape (n, dim of the embeddings)
        Rows at unit length; n at least 1.
    dim : int
        Axes to keep; at most the embeddings' dimension are.
    """
    kept = min(dim, sample.shape[1])
    wide = sample.double()
    mean = wide.mean(dim=0)
    centred = wide - mean
    values, vectors = np.linalg.eigh((centred.T @ centred).numpy())
    axes = np.ascontiguousarray(vectors[:, ::-1][:, :kept])
    total = values.clip(min=0).sum()
    share = float(values[::-1][:kept].clip(min=0).sum() / total) if total > 0 else 1.0
    return PcaModel(mean.numpy(), axes, share)


def save_pca(model: PcaModel, path: Path) -> None:
    """Write a model as safetensors with a JSON header: tensors, no code."""
    with write_aside(path) as temporary:
        save_file(
            {"mean": model.mean, "axes": model.axes},
            temporary,
            {"kind": _KIND, "variance_share": repr(model.variance_share)},
        )


def load_pca(path: Path | str) -> PcaModel:
    """Read a model that `save_pca` wrote.

    Raises
    ------
    InputError
        The file is missing, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("kind") != _KIND:
                raise InputError(
                    f"{path}: expected a model of kind {_KIND}, got {header.get('kind')}."
                )
            return PcaModel(
                file.get_tensor("mean"),
                file.get_tensor("axes"),
                float(header["variance_share"]),
            )
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: not a model file ({error}).") from error
