"""The full-dimension filter: for cells in which the projections of most rows are near each other.

In such a cell, rows lie close together along the axes of the PCA and differ along the others, so
that the filter by projections lets a large share of all pairs through. To look at these one by one
takes longer than one more product, of int8 codes of the full rows at unit length, with a centre and
a step of the cell's own. Like the filter by projections it loses no pair: to leave coordinates out,
or to clip them to the largest code, only shortens distances, and the limit is larger by the error
of rounding. Coordinates are used as long as more of them save time, those that vary most first.
What passes is verified like any candidate. Ours.

Cells, or tiles of large ones, that use it at 0.95: none of 6 of clip art (16,827 rows) and of 9 of
11,883 photos and clip art, nor at 0.9; 4 of 310 of 200,000 synthetic rows; of 200,000 isotropic
rows, of whose variance 64 axes keep an eighth, 17 of 309, and where these lie in 2,000 clusters of
cosine 0.8, 200 of 312, which gains nothing (2.3 and 2.2 s of CPU time for an eighth of the join).
It saves time where many rows are alike and no duplicates: of 300,000 rows, half at a cosine of some
0.85 to each other (`examples/benchmarks/skew.py`, one-cell), 194 of 526 tiles use it; an eighth of
the join took 3.05 s, and 9.34 s without it, as 79 million pairs passed instead of 0.65 million.
The whole run takes 38 s, so without it some 88.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from dask_dedup.cells.candidates import Candidates
from dask_dedup.vectors.int8_codes import CodeRows, code_rows, near_pairs, within_code_distance
from dask_dedup.vectors.pca import LARGEST_CODE, MOST_CODE_DISTANCE

__all__ = ["add_tiles", "full_codes"]

_TRIED = 32  # rows and columns of a tile whose pairs are counted for the share
_CANDIDATE = 40_000  # coordinates of products that take as long as to look at one pair
_MOST_WIDTH = 1024  # coordinates: sums of more would not be exact in float32
_WIDTHS = 8  # shares of the coordinates that are tried
_SAMPLE_ROWS = 128  # of a cell, for the middle, the spread, and how many coordinates to use
_LENGTH_ERROR = 1e-6  # of a squared distance: cosines are compared as float32
_STEP_ERROR = 1e-2  # of a coordinate before rounding, computed in float32

_CPU = torch.device("cpu")


def add_tiles(
    projections: CodeRows,
    limit: int,
    rows: np.ndarray,
    columns: np.ndarray | None,
    batch: Candidates,
    device: torch.device = _CPU,
) -> None:
    """Send the near pairs of two tiles to ``batch``.

    Parameters
    ----------
    projections : CodeRows
        Of all entries.
    limit : int
        Squared distance of codes that a pair may have.
    rows : int64 array
        Entries of the first tile.
    columns : int64 array or None
        Those of the second; None: it is the first, and pairs i < j are looked at.
    batch : Candidates
    device : torch.device
        Where the products run.
    """
    others = rows if columns is None else columns
    if not len(rows) or not len(others):
        return
    left = projections.take(rows)
    right = left if columns is None else projections.take(columns)
    if _passing(projections.codes.numpy(), rows, others, limit) > batch.limits.full_share:
        both = rows if columns is None else np.concatenate([rows, columns])
        full, limit = full_codes(batch, both)
        left, right = full.head(len(rows)), full.tail(len(others))
    for i, j in near_pairs(left, right, limit, columns is None, device):
        batch.add(rows[i], others[j])


def _passing(codes: np.ndarray, rows: np.ndarray, columns: np.ndarray, limit: int) -> float:
    """Return about what share of the pairs of two tiles, or of one, the filter lets through."""
    # Evenly spaced ones; no entry with itself, if there are enough.
    i = rows[np.linspace(0, len(rows) - 1, _TRIED, dtype=np.int64)]
    j = columns[np.linspace(0, len(columns) - 1, 2 * _TRIED, dtype=np.int64)[1::2]]
    i, j = np.repeat(i, _TRIED), np.tile(j, _TRIED)
    return float((within_code_distance(codes, i, j, limit) & (i != j)).mean())


def full_codes(batch: Candidates, entries: np.ndarray) -> tuple[CodeRows, int]:
    """Return int8 codes of full rows, and the squared distance of codes that a pair may have.

    Parameters
    ----------
    batch : Candidates
    entries : int64 array, shape (n,)
    """
    few = batch.full_rows(batch.rank[entries[:: -(-len(entries) // _SAMPLE_ROWS)]])
    few = few / np.linalg.norm(few, axis=1, keepdims=True)
    reach = max(0.0, 2.0 - 2.0 * float(batch.threshold)) + _LENGTH_ERROR
    variance = few.var(axis=0)
    chosen = np.argsort(-variance, kind="stable")
    chosen = chosen[: _quickest_width(few[:, chosen], reach)]
    step = batch.limits.full_spread / LARGEST_CODE * float(np.sqrt(variance.max())) or 1.0
    codes = np.zeros((len(entries), -(-len(chosen) // 4) * 4), np.int8)
    middle = (few.mean(axis=0)[chosen] / step).astype(np.float32)
    at_once = batch.limits.full_rows
    for start in range(0, len(entries), at_once):
        some = slice(start, start + at_once)
        _to_codes(batch.full_rows(batch.rank[entries[some]]), chosen, middle, step, codes[some])
    # Rounding moves each of two rows by half the diagonal of a step.
    radius = np.sqrt(reach) / step + (1.0 + 2.0 * _STEP_ERROR) * np.sqrt(len(chosen))
    return code_rows(codes), int(min(radius**2, MOST_CODE_DISTANCE))


def _quickest_width(rows: np.ndarray, reach: float) -> int:
    """Return how many of the coordinates to use: more cost more and let fewer pairs through.

    Parameters
    ----------
    rows : float array, shape (n, dim)
        A sample at unit length, the coordinates in order.
    reach : float
        Squared distance that a pair may have.
    """
    dim = min(rows.shape[1], _MOST_WIDTH)
    centred = torch.from_numpy(rows - rows.mean(axis=0)).float()
    square, costs = torch.zeros(len(rows), len(rows)), {}
    start = 0
    for part in range(1, _WIDTHS + 1):
        width = max(1, dim * part // _WIDTHS)
        some = centred[:, start:width]
        lengths = torch.linalg.vecdot(some, some)
        square += lengths[:, None] + lengths - 2 * some @ some.T
        share = float((square <= reach).float().mean())
        costs[width] = width + _CANDIDATE * share
        start = width
    return min(costs, key=costs.__getitem__)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _to_codes(
    rows: np.ndarray, chosen: np.ndarray, middle: np.ndarray, step: float, codes: np.ndarray
) -> None:
    """Write int8 codes of some coordinates of rows at unit length, 0 in the middle."""
    some = np.empty(len(chosen), np.float32)
    for i in range(len(rows)):
        row, out, square = rows[i], codes[i], 0.0
        for k in range(len(row)):
            square += np.float64(row[k]) * np.float64(row[k])
        scale = np.float32(1.0 / (np.sqrt(square) * step))
        for k in range(len(chosen)):
            some[k] = row[np.uint32(chosen[k])] * scale
        for k in range(len(chosen)):
            value = np.rint(some[k] - middle[k])
            out[k] = np.int8(min(max(value, np.float32(-127)), np.float32(127)))
