"""Assignment in float64, row by row: what float32 leaves undecided in `dask_dedup.cells.assign`."""

from __future__ import annotations

import numba
import numpy as np

from dask_dedup.cells.assign import MOST_PROBES
from dask_dedup.cells.kmeans import CellModel
from dask_dedup.cells.sizes import MOST_CELLS_PER_ROW

__all__ = ["assign_exactly"]


def assign_exactly(projection: np.ndarray, model: CellModel) -> np.ndarray:
    """Do `assign_cells` in float64, row by row, ties to the lower cell: some 50 us a row.

    Parameters
    ----------
    projection : float64 array, shape (n, kept)

    Returns
    -------
    int32 array, shape (n, MOST_CELLS_PER_ROW)
    """
    return _assign_rows(
        projection,
        model.coarse,
        model.fine,
        model.fine_start,
        model.weights,
        model.margins,
        model.reaches,
    )


@numba.njit(cache=True, nogil=True)
def _nearest_within(
    distances: np.ndarray,
    ids: np.ndarray,
    centroids: np.ndarray,
    weights: np.ndarray,
    margin: float,
    reach: float,
    looked_at: int,
    most: int,
) -> np.ndarray:
    """Return the nearest cells within the margin, ties to the lower, among the nearest of all."""
    within = np.flatnonzero(distances - distances.min() <= reach)
    order = within[np.argsort(distances[within], kind="mergesort")][:looked_at]
    nearest = ids[order[0]]
    chosen = np.full(most, -1, np.int32)
    kept = 0
    for position in order:
        square = 0.0
        for d in range(centroids.shape[1]):
            step = np.float64(centroids[ids[position], d]) - np.float64(centroids[nearest, d])
            square += weights[d] * step * step
        gap = distances[position] - distances[order[0]]
        if kept == 0 or gap <= margin * np.sqrt(square):
            chosen[kept] = ids[position]
            kept += 1
            if kept == most:
                break
    return chosen[:kept]


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _distances(point: np.ndarray, centroids: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return |c|^2/2 - x.c in float64 for a range of centroids."""
    distances = np.empty(last - first)
    for i in range(first, last):
        total = 0.0
        for d in range(centroids.shape[1]):
            c = np.float64(centroids[i, d])
            total += c * (c / 2 - point[d])
        distances[i - first] = total
    return distances


@numba.njit(cache=True, nogil=True)
def _assign_rows(
    projection: np.ndarray,
    coarse: np.ndarray,
    fine: np.ndarray,
    fine_start: np.ndarray,
    weights: np.ndarray,
    margins: np.ndarray,
    reaches: np.ndarray,
) -> np.ndarray:
    """Assign each row in float64."""
    cells = np.full((len(projection), MOST_CELLS_PER_ROW), -1, np.int32)
    every_coarse = np.arange(len(coarse))
    for i in range(len(projection)):
        point = projection[i]
        distances = _distances(point, coarse, 0, len(coarse))
        probed = _nearest_within(
            distances,
            every_coarse,
            coarse,
            weights,
            margins[0],
            reaches[0],
            len(coarse),
            MOST_PROBES,
        )
        probed = np.sort(probed)
        count = 0
        for cell in probed:
            count += fine_start[cell + 1] - fine_start[cell]
        ids, distances = np.empty(count, np.int64), np.empty(count)
        at = 0
        for cell in probed:
            first, last = fine_start[cell], fine_start[cell + 1]
            ids[at : at + last - first] = np.arange(first, last)
            distances[at : at + last - first] = _distances(point, fine, first, last)
            at += last - first
        chosen = _nearest_within(
            distances,
            ids,
            fine,
            weights,
            margins[1],
            reaches[1],
            MOST_CELLS_PER_ROW,
            MOST_CELLS_PER_ROW,
        )
        cells[i, : len(chosen)] = chosen
    return cells
