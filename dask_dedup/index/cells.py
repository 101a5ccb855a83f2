"""Voronoi cells in two levels, and the assignment of rows to them.

Coarse cells come from one k-means; each is divided by a k-means of its own into fine cells, as
many as its share of the sample earns. A row is scored against the coarse centroids, then against
the fine ones of its nearest ``probes`` coarse cells only: N * (sqrt(C) + probes * sqrt(C))
products in place of N * C.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numba
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from dask_dedup.io.store import write_aside

__all__ = [
    "CellModel",
    "assign_cells",
    "assign_exactly",
    "default_cells",
    "load_cells",
    "save_cells",
    "train_coarse",
    "train_fine",
]

_ITERATIONS = 10
_COARSE_SAMPLE = 256  # sample rows per coarse centroid
#: Scores nearer to each other than this are decided again in float64. A score is a float32 dot
#: product of vectors no longer than 2; between two blockings it moves by some 1e-6.
SCORE_ERROR = 1e-5


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
    """

    coarse: np.ndarray
    fine: np.ndarray
    fine_start: np.ndarray

    @property
    def cells(self) -> int:
        """Number of (fine) cells."""
        return len(self.fine)


def default_cells(rows: int) -> int:
    """Return the number of cells for so many rows: 4,096 at 10^6.

    With assignment at 2 * sqrt(probes * C) and the join at rows * visits / C products a row, the
    sum is least where C grows as rows^(2/3). Below 10^6 rows the products cost little: C falls
    faster (rows^1.2), so that small data sets are searched nearly exhaustively.
    """
    scale = rows / 1e6
    return max(1, round(4096 * (scale ** (2 / 3) if scale > 1 else scale**1.2)))


def train_coarse(sample: np.ndarray, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train the coarse centroids and tell how many fine cells each is to have.

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
    chosen = np.random.default_rng(seed).permutation(len(sample))[: _COARSE_SAMPLE * wanted]
    coarse = _kmeans(sample[np.sort(chosen)], wanted, seed)
    nearest = np.concatenate(
        [
            _scores(torch.from_numpy(sample[i : i + 65536]), coarse).argmax(dim=1).numpy()
            for i in range(0, len(sample), 65536)
        ]
    )
    return coarse, nearest.astype(np.int32)


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


def assign_cells(
    image: torch.Tensor, model: CellModel, visits: int, probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find each row's nearest cells.

    Parameters
    ----------
    image : float32 tensor, shape (n, kept)
    visits, probes : int

    Returns
    -------
    cells : int32 array, shape (n, visits)
        The home first, then the further cells by distance; -1 where there are no more.
    unsure : bool array, shape (n,)
        Rows whose home, set of cells, or coarse cells hang on less than float32 can tell:
        `assign_exactly` decides them.
    """
    rows = len(image)
    probes = min(probes, len(model.coarse))
    unsure = np.zeros(rows, np.bool_)
    probed = np.empty((rows, probes), np.int32)
    _top_columns(_scores(image, model.coarse).numpy(), probed, unsure, np.float32(SCORE_ERROR))
    order, bounds = _sort_by_value(probed, len(model.coarse))
    best = np.full((rows, visits + 1), -np.inf, np.float32)
    cells = np.full((rows, visits + 1), -1, np.int32)
    for coarse in np.flatnonzero(np.diff(bounds)):
        first, last = model.fine_start[coarse], model.fine_start[coarse + 1]
        if first == last:
            continue
        chosen = order[bounds[coarse] : bounds[coarse + 1]]
        scores = _scores(image[torch.from_numpy(chosen)], model.fine[first:last])
        _merge_top(scores.numpy(), chosen, first, best, cells)
    _mark_close(best, unsure, np.float32(SCORE_ERROR))
    return cells[:, :visits], unsure


def assign_exactly(
    image: np.ndarray, model: CellModel, visits: int, probes: int
) -> np.ndarray:
    """Do `assign_cells` row by row in float64, ties to the lower cell.

    Parameters
    ----------
    image : float64 array, shape (n, kept)

    Returns
    -------
    int32 array, shape (n, visits)
    """
    coarse = model.coarse.astype(np.float64)
    coarse_bias = (coarse**2).sum(axis=1) / 2
    cells = np.full((len(image), visits), -1, np.int32)
    for i, point in enumerate(image):
        nearest = np.argsort(coarse_bias - coarse @ point, kind="stable")[:probes]
        candidates, distances = [], []
        for cell in np.sort(nearest):
            first, last = model.fine_start[cell], model.fine_start[cell + 1]
            fine = model.fine[first:last].astype(np.float64)
            candidates.append(np.arange(first, last))
            distances.append((fine**2).sum(axis=1) / 2 - fine @ point)
        ids = np.concatenate(candidates)
        chosen = ids[np.argsort(np.concatenate(distances), kind="stable")[:visits]]
        cells[i, : len(chosen)] = chosen
    return cells


def save_cells(model: CellModel, path: Path) -> None:
    """Write the centroids as safetensors."""
    tensors = {"coarse": model.coarse, "fine": model.fine, "fine_start": model.fine_start}
    with write_aside(path) as temporary:
        save_file(tensors, temporary)


def load_cells(path: Path | str) -> CellModel:
    """Read centroids that `save_cells` wrote."""
    return CellModel(**load_file(path))


def _kmeans(points: np.ndarray, cells: int, seed: int) -> np.ndarray:
    faiss.omp_set_num_threads(1)  # sums over points must not depend on the machine
    kmeans = faiss.Kmeans(
        points.shape[1],
        cells,
        niter=_ITERATIONS,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    kmeans.train(np.ascontiguousarray(points, np.float32))
    return kmeans.centroids


def _scores(image: torch.Tensor, centroids: np.ndarray) -> torch.Tensor:
    """Return x.c - |c|^2/2, highest for the nearest: shape (n, centroids)."""
    columns = torch.from_numpy(centroids)
    return torch.addmm(-(columns * columns).sum(dim=1) / 2, image, columns.T)


@numba.njit(cache=True, nogil=True)
def _top_columns(scores, columns, unsure, error):
    """Fill ``columns`` with each row's highest columns; mark rows whose last one is close."""
    rows, width = scores.shape
    k = columns.shape[1]
    best = np.empty(k + 1, np.float32)
    for i in range(rows):
        best[:] = -np.inf
        for j in range(width):
            value = scores[i, j]
            if value > best[k]:
                at = k
                while at > 0 and value > best[at - 1]:
                    best[at] = best[at - 1]
                    if at < k:
                        columns[i, at] = columns[i, at - 1]
                    at -= 1
                best[at] = value
                if at < k:
                    columns[i, at] = j
        if best[k - 1] - best[k] < error:
            unsure[i] = True


@numba.njit(cache=True, nogil=True)
def _merge_top(scores, rows, first_cell, best, cells):
    """Merge the scores of some rows against some cells into the rows' running best."""
    width = best.shape[1]
    for i in range(len(rows)):
        row = rows[i]
        for j in range(scores.shape[1]):
            value = scores[i, j]
            if value > best[row, width - 1]:
                at = width - 1
                while at > 0 and value > best[row, at - 1]:
                    best[row, at] = best[row, at - 1]
                    cells[row, at] = cells[row, at - 1]
                    at -= 1
                best[row, at] = value
                cells[row, at] = first_cell + j


@numba.njit(cache=True, nogil=True)
def _mark_close(best, unsure, error):
    """Mark rows whose home, or whose last cell, is closer to the next one than ``error``."""
    width = best.shape[1]
    for i in range(best.shape[0]):
        if best[i, 0] - best[i, 1] < error or best[i, width - 2] - best[i, width - 1] < error:
            unsure[i] = True


@numba.njit(cache=True, nogil=True)
def _sort_by_value(values, limit):
    """Counting sort: row numbers grouped by each value they hold, and the groups' bounds."""
    bounds = np.zeros(limit + 1, np.int64)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            bounds[values[i, j] + 1] += 1
    for value in range(limit):
        bounds[value + 1] += bounds[value]
    fill = bounds[:-1].copy()
    order = np.empty(values.size, np.int64)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            order[fill[values[i, j]]] = i
            fill[values[i, j]] += 1
    return order, bounds
