"""Which cells a row is in.

A row is scored against the coarse centroids, then against the fine ones of a few near coarse cells
only: N * (1 + probes) * sqrt(C) products, not N * C.

The cells of a row are its nearest one and each further cell whose boundary with the nearest is
closer to the row than a margin. Rows are compared in every cell that they share, so a duplicate
from across the boundary is found. Two things about the margin are ours:

- The margin is weighted by direction. Duplicates differ more along axes where the data vary more,
  so the distance to a boundary with the normal n is divided by sqrt(n' W n), where W is half the
  identity and half the variances of the compressed axes (scaled to a mean of 1).
- The margin is set on the sample so that a row has ``cells_per_row`` entries on average: cost and
  disk are known beforehand, and rows near a boundary get more entries than rows well inside.

Measured on 10^6 synthetic rows in 8,192 cells, groups of up to 50, pairs at cosine >= 0.95 that
meet in some cell, and rows that meet all of theirs:

=============  ======  ======  ======
cells per row  probes   pairs    rows
=============  ======  ======  ======
            4       6  99.4 %  98.1 %
            4      12  99.7 %  98.9 %
            5       9  99.9 %  99.1 %
            6      12  99.9 %  99.5 %
            6      16  99.9 %  99.7 %
=============  ======  ======  ======

A row that misses one of its pairs mostly has another path to it: at 6 cells per row and 12 probes
1,006 of 1,008 sampled rows ended in one cluster with all their duplicates.
"""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import torch

from dask_dedup.cells.kmeans import CellModel, nearness
from dask_dedup.cells.sizes import MOST_CELLS_PER_ROW

__all__ = [
    "MOST_PROBES",
    "SCORE_ERROR",
    "assign_cells",
    "coarse_limits",
    "cut_to_margin",
    "pick_within",
    "set_margins",
    "sort_by_value",
]

MOST_PROBES = 32  # coarse cells probed for a row, at most
_REACH_SHARE = 0.998  # of the cells inside the margin are in reach; for all, twice as many scores
# would have to be looked at
#: Decisions between scores nearer than this are made again in float64: a gap of two scores errs by
#: up to 1e-6 (measured).
SCORE_ERROR = np.float32(3e-6)


def set_margins(
    model: CellModel, sample: np.ndarray, probes: float, cells_per_row: float
) -> CellModel:
    """Return the model with margins that give the wanted averages of probes and cells per row.

    Parameters
    ----------
    model : CellModel
        Its margins are not used.
    sample : float32 array, shape (n, kept)
        Some thousands: all are held with their scores against every coarse cell.
    probes : float
        Coarse cells probed per row on average, at most `MOST_PROBES` for any.
    cells_per_row : float
        Cells of a row on average, at most `MOST_CELLS_PER_ROW` for any.
    """
    projection = torch.from_numpy(sample)
    best = nearness(projection, model.coarse).sort(dim=1, descending=True)
    scores, cells = best.values.numpy(), best.indices.int().numpy()
    coarse = _calibrate(scores, cells, model.coarse, model.weights, probes)
    probed = replace(
        model, margins=np.array([coarse[0], np.inf]), reaches=np.array([coarse[1], np.inf])
    )
    scores, cells, _ = _choose_cells(projection, probed, _probe(projection, probed)[0])
    scores, cells = scores[:, :MOST_CELLS_PER_ROW], cells[:, :MOST_CELLS_PER_ROW]
    fine = _calibrate(scores, cells, model.fine, model.weights, cells_per_row)
    margins, reaches = np.array([coarse, fine]).T.copy()
    return replace(model, margins=margins, reaches=reaches)


def assign_cells(projection: torch.Tensor, model: CellModel) -> tuple[np.ndarray, np.ndarray]:
    """Find the cells of each row.

    Parameters
    ----------
    projection : float32 tensor, shape (n, kept)
    model : CellModel

    Returns
    -------
    cells : int32 array, shape (n, MOST_CELLS_PER_ROW)
        The nearest first, then the further cells by distance; -1 where there are no more.
    unsure : bool array, shape (n,)
        Rows of which some decision depends on a difference below the error of float32;
        `dask_dedup.cells.assign_exact` makes it.
    """
    probed, probe_unsure = _probe(projection, model)
    _, cells, choose_unsure = _choose_cells(projection, model, probed)
    return cells[:, :MOST_CELLS_PER_ROW], probe_unsure | choose_unsure


def _probe(projection: torch.Tensor, model: CellModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the coarse cells to probe for each row, the nearest first, and which are unsure."""
    limits = coarse_limits(model.coarse, model.weights, model.margins[0], model.reaches[0])
    scores = nearness(projection, model.coarse).numpy()
    cells = np.full((len(projection), MOST_PROBES), -1, np.int32)
    unsure = np.zeros(len(projection), bool)
    pick_within(scores, limits, SCORE_ERROR, cells, unsure)
    return cells, unsure


def _choose_cells(
    projection: torch.Tensor, model: CellModel, probed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores and numbers of the nearest cells among those of the probed coarse cells."""
    # One cell more than may be kept, to see what is close.
    best = np.full((len(projection), MOST_CELLS_PER_ROW + 1), -np.inf, np.float32)
    cells = np.full((len(projection), MOST_CELLS_PER_ROW + 1), -1, np.int32)
    unsure = np.zeros(len(projection), bool)
    margin, reach = model.margins[1], np.float32(model.reaches[1])
    for ranks in (probed[:, :1], probed[:, 1:]):
        order, bounds = sort_by_value(ranks, len(model.coarse))
        for coarse in np.flatnonzero(np.diff(bounds)):
            first, last = model.fine_start[coarse], model.fine_start[coarse + 1]
            if first < last:
                chosen = order[bounds[coarse] : bounds[coarse + 1]]
                some = projection.index_select(0, torch.from_numpy(chosen))
                halves = model.fine_half_squares[first:last]
                scores = nearness(some, model.fine[first:last], halves)
                _merge_top(scores.numpy(), chosen, first, best, cells, reach + SCORE_ERROR)
    cut_to_margin(best, cells, model.fine, model.weights, margin, reach, SCORE_ERROR, unsure)
    return best, cells, unsure


def _calibrate(
    scores: np.ndarray, cells: np.ndarray, centroids: np.ndarray, weights: np.ndarray, wanted: float
) -> tuple[float, float]:
    """Return margin and reach that take ``wanted`` cells a row on average, the nearest counted."""
    margins = _margins(scores, cells, centroids, weights)[:, 1:]
    further = np.sort(margins.ravel())
    count = min(round((wanted - 1) * len(margins)), np.isfinite(further).sum())
    if count <= 0:
        return 0.0, 0.0
    margin = further[count - 1]
    gaps = scores[:, :1] - scores[:, 1:]
    return float(margin), float(np.quantile(gaps[margins <= margin], _REACH_SHARE))


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _boundary_scale(centroids: np.ndarray, weights: np.ndarray, a: int, b: int) -> np.float32:
    """Return sqrt((a - b)' W (a - b)) of two centroids."""
    square = np.float32(0)
    for d in range(centroids.shape[1]):
        step = centroids[a, d] - centroids[b, d]
        square += weights[d] * step * step
    return np.sqrt(square)


@numba.njit(cache=True, nogil=True)
def coarse_limits(
    coarse: np.ndarray, weights: np.ndarray, margin: np.float32, reach: np.float32
) -> np.ndarray:
    """Return how much further than cell a, the nearest, cell b may be for a row to probe it."""
    limits = np.empty((len(coarse), len(coarse)), np.float32)
    for a in range(len(coarse)):
        for b in range(len(coarse)):
            limits[a, b] = min(margin * _boundary_scale(coarse, weights, a, b), reach)
    return limits


@numba.njit(cache=True, nogil=True)
def pick_within(
    scores: np.ndarray, limits: np.ndarray, error: np.float32, cells: np.ndarray, unsure: np.ndarray
) -> None:
    """Pick the nearest cell of each row and those within its limits; mark what is too close.

    At most as many as ``cells`` has columns, then the nearest ones. The first is the nearest, the
    others are in order of their numbers.
    """
    count, most = scores.shape[1], cells.shape[1]
    beyond = np.empty(count, np.float32)
    within = np.empty(count, np.int32)
    for i in range(scores.shape[0]):
        nearest, top = 0, scores[i, 0]
        for j in range(1, count):
            if scores[i, j] > top:
                nearest, top = j, scores[i, j]
        limit = limits[nearest]
        close = 0
        for j in range(count):  # the compiler makes vector code of this one
            gap = top - scores[i, j]
            beyond[j] = gap - limit[j]
            close += (abs(beyond[j]) < error) | (gap < error)
        found = 0
        for j in range(count):
            within[found] = j
            found += beyond[j] <= 0
        unsure[i] = close > 1  # the nearest itself is at no distance
        if found > most:
            order = np.argsort(-scores[i][within[:found]], kind="mergesort")
            last, next_one = scores[i, within[order[most - 1]]], scores[i, within[order[most]]]
            unsure[i] |= last - next_one < error
            within[:most] = np.sort(within[order[:most]])
            found = most
        cells[i, 0] = nearest
        at = 1
        for k in range(found):
            if within[k] != nearest and at < most:
                cells[i, at] = within[k]
                at += 1


@numba.njit(cache=True, nogil=True)
def _merge_top(
    scores: np.ndarray,
    rows: np.ndarray,
    first_cell: int,
    best: np.ndarray,
    cells: np.ndarray,
    reach: np.float32,
) -> None:
    """Merge the scores of some rows against some cells into the rows' running best.

    Scores further than ``reach`` below a row's best one are passed over: with the nearest coarse
    cell first, nearly all are.
    """
    width = best.shape[1]
    within = np.empty(scores.shape[1], np.int32)
    for i in range(len(rows)):
        row = rows[i]
        top = best[row, 0]
        if top == -np.inf:
            for j in range(scores.shape[1]):
                top = max(top, scores[i, j])
        floor = max(best[row, width - 1], top - reach)
        above = 0
        for j in range(scores.shape[1]):  # the compiler makes vector code of this one
            above += scores[i, j] > floor
        if above == 0:
            continue
        found = 0
        for j in range(scores.shape[1]):
            within[found] = j
            found += scores[i, j] > floor
        for k in range(found):
            value = scores[i, within[k]]
            at = width - 1
            if value > best[row, at]:
                while at > 0 and value > best[row, at - 1]:
                    best[row, at] = best[row, at - 1]
                    cells[row, at] = cells[row, at - 1]
                    at -= 1
                best[row, at] = value
                cells[row, at] = first_cell + within[k]


@numba.njit(cache=True, nogil=True)
def _margins(
    scores: np.ndarray, cells: np.ndarray, centroids: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return each cell's weighted distance to the boundary with the first; infinity for none."""
    margins = np.full(scores.shape, np.inf, np.float32)
    for i in range(scores.shape[0]):
        for k in range(scores.shape[1]):
            if cells[i, k] >= 0:
                scale = _boundary_scale(centroids, weights, cells[i, k], cells[i, 0])
                margins[i, k] = (scores[i, 0] - scores[i, k]) / scale if scale > 0 else 0.0
    return margins


@numba.njit(cache=True, nogil=True)
def cut_to_margin(
    scores: np.ndarray,
    cells: np.ndarray,
    centroids: np.ndarray,
    weights: np.ndarray,
    margin: np.float32,
    reach: np.float32,
    error: np.float32,
    unsure: np.ndarray,
) -> None:
    """Keep the nearest cell of each row and those within the margin; mark what is too close.

    ``scores`` and ``cells`` are by falling score and one column wider than may be kept. What is
    not kept becomes -1, the last column in any case; the others stay in order.
    """
    width = scores.shape[1]
    for i in range(scores.shape[0]):
        if cells[i, 1] >= 0 and scores[i, 0] - scores[i, 1] < error:
            unsure[i] = True
        nearest, kept = cells[i, 0], 1
        for k in range(1, width):
            if cells[i, k] < 0:
                break
            gap = scores[i, 0] - scores[i, k]
            limit = np.float32(np.inf)
            if margin < np.inf:
                limit = margin * _boundary_scale(centroids, weights, cells[i, k], nearest)
                limit = min(limit, reach)
                if abs(gap - limit) < error:
                    unsure[i] = True
            if k == width - 1:
                if gap <= limit and scores[i, k - 1] - scores[i, k] < error:
                    unsure[i] = True
            elif gap <= limit:
                scores[i, kept], cells[i, kept] = scores[i, k], cells[i, k]
                kept += 1
        for k in range(kept, width):
            cells[i, k] = -1


@numba.njit(cache=True, nogil=True)
def sort_by_value(values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Counting sort: row numbers grouped by each value they hold (-1 is none), and the bounds."""
    bounds = np.zeros(limit + 1, np.int64)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if values[i, j] >= 0:
                bounds[values[i, j] + 1] += 1
    for value in range(limit):
        bounds[value + 1] += bounds[value]
    fill = bounds[:-1].copy()
    order = np.empty(bounds[-1], np.int64)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if values[i, j] >= 0:
                order[fill[values[i, j]]] = i
                fill[values[i, j]] += 1
    return order, bounds
