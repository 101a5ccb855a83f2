"""Which copies stay where some are wanted rather than others: in an order, or protected.

As `dask_dedup.results.witness`, for rows that have ranks and roles: see `dask_dedup.results.order`
and `roles`. The first row of a cluster stays, and rows near it are dropped for it before they come
here. Of a group of the others:

1. Protected rows stay.
2. By rank, each row stays that no row is near that stays already. A row that is dropped has for its
   witness the first by rank of those that stay and are near it. Without an order: of the rows
   without a witness the one stays that is near most of them, again and again.
3. Unwanted rows never stay, and may end without a witness.

Groups are of at most 8,192 rows with an order and of 1,024 without: in each the choice is exactly
this, and a larger cluster has several, of neighbours in its forest.
"""

from __future__ import annotations

import numba
import numpy as np

from dask_dedup.results.roles import PROTECTED, UNWANTED
from dask_dedup.results.sizes import WINDOW_ROWS
from dask_dedup.results.witness import (
    PAIRWISE_ROWS,
    Gather,
    Witnesses,
    batches,
    near_pairs,
    pairs_inside,
)
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows

__all__ = ["ORDERED_ROWS", "find_ordered"]

ORDERED_ROWS = 1 << 13  # of a group with an order


def find_ordered(
    row_ids: np.ndarray,
    starts: np.ndarray,
    ranks: np.ndarray,
    roles: np.ndarray,
    gather: Gather,
    threshold: float,
    is_ordered: bool,
    window_rows: int = WINDOW_ROWS,
) -> Witnesses:
    """Find which rows of each group stay, and a witness for each of the others.

    Parameters
    ----------
    row_ids, starts, gather, threshold, window_rows
        As of `dask_dedup.results.witness.find_witnesses`.
    ranks : int64 array, shape (rows,)
        Inside their clusters.
    roles : uint8 array, shape (rows,)
    is_ordered : bool
        Whether ranks decide which rows stay; else groups have at most 1,024 rows.

    Returns
    -------
    Witnesses
        In the order of ``row_ids``; the witness of an unwanted row without one is -1.
    """
    witness, similarity = row_ids.copy(), np.ones(len(row_ids), np.float32)
    lowest = np.float32(threshold)
    order = np.lexsort((ranks, np.repeat(np.arange(len(starts) - 1), np.diff(starts))))
    row_ids, roles = row_ids[order], roles[order]
    for first, stop in batches(starts, window_rows):
        begin, end = starts[first], starts[stop]
        own, some = row_ids[begin:end], roles[begin:end]
        if stop - first > 1 or end - begin <= PAIRWISE_ROWS:
            inner = starts[first : stop + 1] - begin
            chosen, found = _choose_small(own, inner, some, gather, lowest, is_ordered)
        elif end - begin <= window_rows:
            rows = _gather(own, gather)
            near = near_pairs(rows, rows, lowest)
            chosen = _cover(near, some == PROTECTED, some == UNWANTED, is_ordered)
            found = _similarities(rows, chosen)
        else:
            assert is_ordered
            chosen, found = _choose_large(own, some, gather, lowest, window_rows)
        place = order[begin:end]
        witness[place] = np.where(chosen >= 0, own[chosen], -1)
        similarity[place] = found
    return Witnesses(witness, similarity)


def _choose_small(
    row_ids: np.ndarray,
    starts: np.ndarray,
    roles: np.ndarray,
    gather: Gather,
    lowest: np.float32,
    is_ordered: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose in groups of few rows, read together."""
    rows = _gather(row_ids, gather)
    i, j = pairs_inside(starts)
    cosines = cosine_pairs(rows, rows, i, j)
    fixed, never = roles == PROTECTED, roles == UNWANTED
    return _cover_groups(starts, cosines, float(lowest), fixed, never, is_ordered)


def _choose_large(
    row_ids: np.ndarray, roles: np.ndarray, gather: Gather, lowest: np.float32, window_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose in one group by rank, in windows, each compared with all that stay before it."""
    rows = _gather(row_ids, gather)
    fixed, never = roles == PROTECTED, roles == UNWANTED
    chosen = np.where(fixed, np.arange(len(row_ids)), -1)
    stays = np.empty(0, np.int64)
    for begin in range(0, len(row_ids), window_rows):
        window = np.arange(begin, min(begin + window_rows, len(row_ids)))
        open_rows = window[~fixed[window]]
        if len(stays) and len(open_rows):
            near = near_pairs(rows[stays], rows[open_rows], lowest)
            covered = near.any(axis=0)
            chosen[open_rows[covered]] = stays[near[:, covered].argmax(axis=0)]
        left = window[(chosen[window] < 0) | fixed[window]]
        own = rows[left]
        found = _cover(near_pairs(own, own, lowest), fixed[left], never[left], True)
        chosen[left] = np.where(found >= 0, left[found], -1)
        stays = np.concatenate([stays, left[found == np.arange(len(left))]])
    return chosen, _similarities(rows, chosen)


def _gather(row_ids: np.ndarray, gather: Gather) -> np.ndarray:
    ids, back = np.unique(row_ids, return_inverse=True)
    return exact_rows(gather(ids))[back]


def _similarities(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    similarity = np.ones(len(chosen), np.float32)
    dropped = np.flatnonzero((chosen >= 0) & (chosen != np.arange(len(chosen))))
    similarity[dropped] = cosine_pairs(rows, rows, dropped, chosen[dropped])
    return similarity


@numba.njit(cache=True, nogil=True)
def _cover_groups(
    starts: np.ndarray,
    cosines: np.ndarray,
    lowest: float,
    fixed: np.ndarray,
    never: np.ndarray,
    is_ordered: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of small groups the one that stands for it, or -1, and their cosine."""
    chosen = np.empty(starts[-1], np.int64)
    similarity = np.ones(starts[-1], np.float32)
    pair = 0
    for group in range(len(starts) - 1):
        begin, end = starts[group], starts[group + 1]
        rows = end - begin
        known = np.ones((rows, rows), np.float32)
        for x in range(rows):
            for y in range(x + 1, rows):
                known[x, y] = known[y, x] = cosines[pair]
                pair += 1
        covers = _cover(known >= lowest, fixed[begin:end], never[begin:end], is_ordered)
        for x in range(rows):
            chosen[begin + x] = -1
            if covers[x] >= 0:
                chosen[begin + x] = begin + covers[x]
                similarity[begin + x] = known[x, covers[x]]
    return chosen, similarity


@numba.njit(cache=True, nogil=True)
def _cover(near: np.ndarray, fixed: np.ndarray, never: np.ndarray, is_ordered: bool) -> np.ndarray:
    """Return for each row the one that stands for it: itself where it stays, -1 for none.

    ``near``: bool, symmetric, rows by rank.
    """
    rows = len(near)
    chosen = np.full(rows, -1, np.int64)
    for x in range(rows):
        if fixed[x]:
            chosen[x] = x
    for x in range(rows):  # all that are fixed stand before the others
        if fixed[x] or (is_ordered and chosen[x] < 0 and not never[x]):
            chosen[x] = x
            for y in range(rows):
                if near[x, y] and chosen[y] < 0:
                    chosen[y] = x
    if is_ordered:
        return chosen
    gain = np.zeros(rows, np.int64)  # rows without a witness that it is near
    for x in range(rows):
        if chosen[x] < 0:
            for y in range(rows):
                gain[y] += near[x, y]
    while True:
        best, most = -1, 0
        for x in range(rows):
            if chosen[x] < 0 and not never[x] and gain[x] > most:
                best, most = x, gain[x]
        if best < 0:
            return chosen
        for x in range(rows):
            if chosen[x] < 0 and (near[best, x] or x == best):
                chosen[x] = best
                for y in range(rows):
                    gain[y] -= near[x, y]
