"""PCA with the length of what it leaves out: the lossless filter.

For an orthonormal projection P and a shift m the map ``x -> (P(x - m), |(I - P'P)(x - m)|)`` never
lengthens a distance. Two unit vectors of cosine c are ``sqrt(2 - 2c)`` apart, so a pair whose
projections are further apart than that has a lower cosine, and no pair at c or above is lost.

The join reads int8 codes of the projection: a scalar quantizer of one byte a coordinate, with the
same step for all, so that distances of codes are integers. Coordinates beyond the largest code are
clipped to it, which shortens distances as well; rounding lengthens them by no more than the
diagonal of one step, and the filter's radius grows by as much. (A step for each coordinate would
let at best a tenth fewer pairs through, none fewer on synthetic rows, and exclude the integer
products: see `dask_dedup.vectors.int8_codes`.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch

from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import read_noted_arrays, write_arrays
from dask_dedup.vectors.unit import VectorBlock, prepare_block

__all__ = [
    "COORDINATE_ERROR",
    "LARGEST_CODE",
    "MOST_CODE_DISTANCE",
    "PcaModel",
    "filter_radius",
    "fit_axes",
    "leading_axes",
    "load_pca",
    "save_pca",
]

_KIND = "dask_dedup.pca.3"

#: How far a projection (of a float32 product) may lie from the exact one, with room for products of
#: projections: the square of the length left out is a difference of numbers near 1 known to 1e-6,
#: so the length is known to sqrt(1e-6). Tests look for larger errors.
COORDINATE_ERROR = 2.0e-3

#: Standard deviations of the widest coordinate between the code 0 and the largest: from 1.5 to
#: 2.5 the number of pairs let through differs by 2 %, on images and on synthetic rows.
_CODE_SPREAD = 2.0
_GRAM_ROWS = 1024  # squared in float32 and summed in float64: any orthonormal axes lose no pair
LARGEST_CODE = 127  # as many, in one byte
MOST_CODE_DISTANCE = 1 << 27  # above any squared distance of codes of up to 2,000 coordinates


@dataclass(frozen=True)
class PcaModel:
    """A fitted PCA.

    Attributes
    ----------
    mean : float64 array, shape (dim,)
    axes : float64 array, shape (dim, kept)
        Orthonormal columns, by falling variance.
    centre : float32 array, shape (kept + 1,)
        The projection whose codes are 0.
    step : float
        Between two neighbouring codes, in every coordinate.
    variance_share : float
        Share of the sample's variance that the axes keep.
    """

    mean: np.ndarray
    axes: np.ndarray
    centre: np.ndarray
    step: float
    variance_share: float

    @property
    def kept(self) -> int:
        """Number of axes."""
        return self.axes.shape[1]

    @property
    def width(self) -> int:
        """Coordinates of the int8 codes of a row: filled up with zeros to a multiple of 4."""
        return -(-(self.kept + 1) // 4) * 4

    def transform(
        self,
        block: VectorBlock,
        out: torch.Tensor | None = None,
        device: torch.device | None = None,
    ) -> torch.Tensor:
        """Project rows at unit length; the last coordinate is the length of what is left out.

        Parameters
        ----------
        block : VectorBlock
            n rows of any length.
        out : float32 tensor, shape (n, kept + 1), optional
        device : torch.device, optional
            Where the products run; what is returned is not there.

        Returns
        -------
        float32 tensor, shape (n, kept + 1)
        """
        if out is None:
            out = torch.empty(len(block.rows), self.kept + 1)
        rows, axes, mean, shift, inverse = (
            values.to(device or "cpu")
            for values in (
                block.rows,
                torch.from_numpy(self.axes.astype(np.float32)),
                torch.from_numpy(self.mean.astype(np.float32)),
                torch.from_numpy((self.mean @ self.axes).astype(np.float32)),
                1.0 / block.lengths,
            )
        )
        projection = torch.mm(rows, axes)
        projection.mul_(inverse[:, None]).sub_(shift)
        # |x - m|^2 = 1 - 2 x.m + |m|^2 for a unit x; what the axes keep is taken off.
        square = 1.0 + float(self.mean @ self.mean) - 2.0 * torch.mv(rows, mean) * inverse
        square -= torch.linalg.vector_norm(projection, dim=1).square_()
        out[:, : self.kept] = projection
        out[:, self.kept] = square.clamp_(min=0.0).sqrt_()
        return out

    def to_codes(self, projection: torch.Tensor) -> torch.Tensor:
        """Return projections as int8 codes, steps from the centre: int8, shape (n, width)."""
        codes = (projection - torch.from_numpy(self.centre)).div_(self.step)
        codes.round_().clamp_(-LARGEST_CODE, LARGEST_CODE)
        filled = torch.zeros(len(projection), self.width, dtype=torch.int8)
        filled[:, : self.kept + 1] = codes
        return filled

    def largest_code_distance(self, threshold: float) -> int:
        """Return the squared distance of codes above which a pair's cosine is below a threshold."""
        radius = filter_radius(threshold) / self.step + np.sqrt(self.kept + 1)
        return int(min(radius**2, MOST_CODE_DISTANCE))

    def sketch_axes(self, width: int, seed: int) -> torch.Tensor:
        """Return random directions orthogonal to the axes: float32, shape (dim, width).

        The products of two rows at unit length with them are as far apart as what the projection
        leaves out of the rows, up to a share of sqrt(2 / width): a standard deviation of the
        squared distance (Johnson and Lindenstrauss, 1984).
        """
        directions = np.random.default_rng(seed).normal(size=(len(self.mean), width))
        directions -= self.axes @ (self.axes.T @ directions)
        return torch.from_numpy((directions / np.sqrt(width)).astype(np.float32))

    def transform_exactly(self, rows: np.ndarray) -> np.ndarray:
        """Project float32 rows of any length in float64, alike in any block: shape (n, kept)."""
        return _project_rows(rows, self.mean, self.axes)


@numba.njit(cache=True, nogil=True)
def _project_rows(rows: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    projection = np.zeros((rows.shape[0], axes.shape[1]))
    for i in range(rows.shape[0]):
        square = 0.0
        for j in range(rows.shape[1]):
            square += np.float64(rows[i, j]) ** 2
        inverse = 1.0 / np.sqrt(square) if square > 0 else 0.0
        for j in range(rows.shape[1]):
            value = rows[i, j] * inverse - mean[j]
            for k in range(axes.shape[1]):
                projection[i, k] += value * axes[j, k]
    return projection


def filter_radius(threshold: float) -> float:
    """Return the distance of projections above which a pair's cosine is below ``threshold``."""
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
    mean = sample.mean(dim=0, dtype=torch.float64)
    gram = torch.zeros(sample.shape[1], sample.shape[1], dtype=torch.float64)
    for block in sample.split(_GRAM_ROWS):
        centred = (block - mean).float()
        gram += centred.T @ centred
    axes, share = leading_axes(gram, kept)
    unset = PcaModel(mean.numpy(), axes, np.zeros(kept + 1, np.float32), 1.0, share)
    projection = unset.transform(prepare_block(sample.float().numpy()))
    widest = float(projection.std(dim=0, correction=0).max())
    step = _CODE_SPREAD / LARGEST_CODE * widest or 1.0  # any step serves where all rows are equal
    return PcaModel(mean.numpy(), axes, projection.mean(dim=0).numpy(), step, share)


def leading_axes(moment: torch.Tensor, kept: int) -> tuple[np.ndarray, float]:
    """Return the eigenvectors of largest eigenvalue, and these values' share of the trace.

    Parameters
    ----------
    moment : float64 tensor, shape (dim, dim)
        Symmetric, no negative eigenvalue: a covariance, or a sum of squares and products.
    kept : int

    Returns
    -------
    axes : float64 array, shape (dim, kept)
    share : float
    """
    # By torch: its threads are the caller's to set, and their number changes the last bits.
    values, vectors = (side.numpy() for side in torch.linalg.eigh(moment))
    axes = np.ascontiguousarray(vectors[:, ::-1][:, :kept])
    total = values.clip(min=0).sum()
    share = float(values[::-1][:kept].clip(min=0).sum() / total) if total > 0 else 1.0
    return axes, share


def save_pca(model: PcaModel, path: AnyPath) -> None:
    """Write a model as safetensors with a JSON header: tensors, no code."""
    header = {
        "kind": _KIND,
        "step": repr(model.step),
        "variance_share": repr(model.variance_share),
    }
    write_arrays(path, header, mean=model.mean, axes=model.axes, centre=model.centre)


def load_pca(path: AnyPath | str) -> PcaModel:
    """Read a model that `save_pca` wrote.

    Raises
    ------
    DamagedError
        The file is missing, or not what was written.
    InputError
        It is of another kind.
    """
    arrays, header = read_noted_arrays(path)
    if header.get("kind") != _KIND:
        raise InputError(f"{path}: expected a model of kind {_KIND}, got {header.get('kind')}.")
    return PcaModel(
        arrays["mean"],
        arrays["axes"],
        arrays["centre"],
        float(header["step"]),
        float(header["variance_share"]),
    )
