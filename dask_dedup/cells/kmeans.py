"""Voronoi cells in two levels: training, saving, loading.

Coarse cells come from one k-means; each is divided by a k-means of its own into fine cells, whose
number is in proportion to its share of the sample. Near-copies in the sample are left out before:
else a group of thousands attracts as many centroids as its share of the rows, and is cut into
pieces.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import faiss
import numba
import numpy as np
import torch

from dask_dedup.cells.sizes import COARSE_SAMPLE, ITERATIONS
from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import read_arrays, write_arrays

__all__ = [
    "CellModel",
    "load_cells",
    "nearness",
    "save_cells",
    "thin",
    "train_coarse",
    "train_fine",
]

THIN_RADIUS = 0.4  # the distance of unit vectors with cosine 0.92
_CORE_RADIUS = 0.35  # 0.94
_CORE_SHARE = 0.25  # of the points within the one, those within the other: in a group of copies
_FEW_NEAR = 24  # points close by: a cell's share of the sample
_THIN_ROWS = 256  # rows compared with all before them at a time


@dataclass(frozen=True)
class CellModel:
    """Centroids of both levels, in the compressed space without its last coordinate.

    Attributes
    ----------
    coarse : float32 array, shape (coarse cells, kept)
    fine : float32 array, shape (cells, kept)
        Sorted by coarse cell.
    fine_start : int64 array, shape (coarse cells + 1,)
        The fine cells of coarse cell i are ``fine_start[i]`` to ``fine_start[i + 1]``.
    weights : float32 array, shape (kept,)
        The diagonal of W.
    margins : float64 array, shape (2,)
        Weighted distances to a boundary within which coarse cells are probed and cells are a row's.
    reaches : float64 array, shape (2,)
        How much further than the nearest such a cell may be, in `nearness`: nearly the most that
        was seen on the sample. The others need not be looked at.
    """

    coarse: np.ndarray
    fine: np.ndarray
    fine_start: np.ndarray
    weights: np.ndarray
    margins: np.ndarray
    reaches: np.ndarray

    @property
    def cells(self) -> int:
        """Number of (fine) cells."""
        return len(self.fine)

    @cached_property
    def fine_half_squares(self) -> torch.Tensor:
        """|c|^2/2 of the fine centroids."""
        return _half_squares(self.fine)


def train_coarse(sample: np.ndarray, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train the coarse centroids and assign the sample rows to them.

    Parameters
    ----------
    sample : float32 array, shape (n, kept), in ``row_id`` order
    cells : int
        Fine cells wanted in all.
    seed : int

    Returns
    -------
    coarse : float32 array, shape (about sqrt(cells), kept)
    nearest : int32 array, shape (n,)
        Coarse cell of each sample row.
    """
    wanted = max(1, min(round(cells**0.5), len(sample)))
    chosen = np.random.default_rng(seed).permutation(len(sample))[: COARSE_SAMPLE * wanted]
    coarse = _kmeans(sample[np.sort(chosen)], wanted, seed)
    nearest = np.concatenate(
        [
            nearness(torch.from_numpy(sample[i : i + 65536]), coarse).argmax(dim=1).numpy()
            for i in range(0, len(sample), 65536)
        ]
    )
    return coarse, nearest.astype(np.int32)


def thin(points: np.ndarray, kept: int) -> np.ndarray:
    """Return the projections of points but those in a group that have an earlier one close by.

    A group of near-copies would otherwise attract as many centroids as its rows are many, be cut
    into as many cells, and lose pairs across their boundaries. Rows that are close to many
    others and copies of none need their cells. The difference between the two: around a copy, a
    quarter or more of the points within `THIN_RADIUS` are well inside it. (Measured: without this
    rule, half of 10^6 rows, all at a cosine of some 0.85, got a tenth of the cells, and the join
    took three times as long. With a smaller radius, or a rule for fewer points close by, ordinary
    data lost 0.4 % of its rows.) Ours.

    Parameters
    ----------
    points : float32 array, shape (n, kept + width)
        Projection and sketch of each.
    kept : int

    Returns
    -------
    float32 array, shape (points left, kept)
    """
    rows = torch.from_numpy(points)
    half_square = (torch.linalg.vecdot(rows, rows) / 2)[:, None]
    # [x, -|x|^2/2, 1].[y, 1, (r^2 - |y|^2)/2] = (r^2 - |x - y|^2)/2
    one = torch.ones(len(points), 1)
    left = torch.cat([rows, -half_square, one], dim=1)
    right = torch.cat([rows, one, THIN_RADIUS**2 / 2 - half_square], dim=1)
    core = np.float32((THIN_RADIUS**2 - _CORE_RADIUS**2) / 2)
    is_kept = np.ones(len(points), np.bool_)
    for start in range(0, len(points), _THIN_ROWS):
        stop = min(start + _THIN_ROWS, len(points))
        product = torch.mm(left[start:stop], right.T).numpy()
        before, near, nearer = _count_near(product, start, core)
        is_kept[start:stop] = ~(before & ((nearer >= _CORE_SHARE * near) | (near < _FEW_NEAR)))
    return points[is_kept, :kept]


@numba.njit(cache=True, nogil=True)
def _count_near(
    product: np.ndarray, first: int, core: np.float32
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the values of at least 0 in each row i, which is column ``first + i``.

    Returns
    -------
    before : bool array
        Whether there is one before its own column.
    near, nearer : int64 arrays
        How many there are besides its own, and how many of at least ``core``.
    """
    before = np.empty(len(product), np.bool_)
    near, nearer = np.empty(len(product), np.int64), np.empty(len(product), np.int64)
    for i in range(len(product)):
        earlier, later = product[i, : first + i], product[i, first + i + 1 :]
        within, inside = np.int32(0), np.int32(0)  # not in an array: vector code
        for j in range(len(earlier)):
            within += earlier[j] >= 0
            inside += earlier[j] >= core
        before[i] = within > 0
        for j in range(len(later)):
            within += later[j] >= 0
            inside += later[j] >= core
        near[i], nearer[i] = within, inside
    return before, near, nearer


def train_fine(members: np.ndarray, cells: int, seed: int) -> np.ndarray:
    """Divide one coarse cell: float32 centroids, shape (at most ``cells``, kept).

    Parameters
    ----------
    members : float32 array, shape (n, kept)
        The sample rows of the coarse cell; where there are none, there is no centroid.
    """
    if len(members) == 0:
        return members[:0]
    return _kmeans(members, max(1, min(cells, len(members))), seed)


def nearness(
    projection: torch.Tensor, centroids: np.ndarray, half_squares: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x.c - |c|^2/2, highest for the nearest: shape (n, centroids)."""
    if half_squares is None:
        half_squares = _half_squares(centroids)
    return torch.addmm(half_squares, projection, torch.from_numpy(centroids).T, beta=-1)


def _half_squares(centroids: np.ndarray) -> torch.Tensor:
    columns = torch.from_numpy(centroids)
    return torch.linalg.vecdot(columns, columns).mul_(0.5)


def save_cells(model: CellModel, path: AnyPath) -> None:
    """Write the centroids as arrays."""
    write_arrays(path, **asdict(model))


def load_cells(path: AnyPath | str) -> CellModel:
    """Read centroids that `save_cells` wrote."""
    return CellModel(**read_arrays(path))


def _kmeans(points: np.ndarray, cells: int, seed: int) -> np.ndarray:
    faiss.omp_set_num_threads(1)  # sums over points must not depend on the machine
    kmeans = faiss.Kmeans(
        points.shape[1],
        cells,
        niter=ITERATIONS,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    kmeans.train(np.ascontiguousarray(points, np.float32))
    return np.asarray(kmeans.centroids)
