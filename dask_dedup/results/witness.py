"""Which copies stay: for each row that is dropped a witness, a row that stays and is near enough.

A row within the threshold of its cluster's representative has that for its witness. The others come
here in groups, each of rows of one cluster (`dask_dedup.results.witness_groups`). A group is gone
through in windows of at most 1,024 rows:

1. Rows near one that stays already are dropped: of those that stay, the 128 that are witnesses of
   most rows are asked.
2. Of the rest, the row stays that is near most rows still without a witness, itself included; they
   are dropped. Again until none is left. Of equals, the smallest ``row_id`` stays.

So of a group of one window no two rows that stay are near each other. Near is: float32 of the
cosine in float64 is at least the threshold. In windows of more than 32 rows a matrix product
decides what is clearly above or below, which is the same; memory and time per row are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numba
import numpy as np

from dask_dedup.results.sizes import WINDOW_ROWS
from dask_dedup.results.witness_files import Witnesses
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows

__all__ = [
    "PAIRWISE_ROWS",
    "Gather",
    "Witnesses",
    "batches",
    "find_witnesses",
    "near_pairs",
    "pairs_inside",
]

_CARRIED_ROWS = 128  # that stay, of the windows of a group before
PAIRWISE_ROWS = 32  # up to here all pairs in float64 take less than a matrix product's overhead
_READ_ROWS = 4096  # of small groups, read together

#: Takes sorted row ids; returns the stored rows.
Gather = Callable[[np.ndarray], np.ndarray]


def find_witnesses(
    row_ids: np.ndarray,
    starts: np.ndarray,
    gather: Gather,
    threshold: float,
    window_rows: int = WINDOW_ROWS,
) -> Witnesses:
    """Find which rows of each group stay, and a witness for each of the others.

    Parameters
    ----------
    row_ids : int64 array, shape (rows,)
        Group after group; inside a group of more than one window, rows that are likely to be near
        each other stand together. None twice.
    starts : int64 array, shape (groups + 1,)
        First row of each group, and the number of rows.
    gather : callable
        Takes row ids, int64, sorted; returns their embeddings as stored, shape (ids, dim). Each row
        is asked for once.
    threshold : float
        Cosine; compared as float32, "at least".
    window_rows : int
        Of a group that are compared with each other.

    Returns
    -------
    Witnesses
        In the order of ``row_ids``. The same whatever stands beside a group.
    """
    witness, similarity = row_ids.copy(), np.ones(len(row_ids), np.float32)
    lowest = np.float32(threshold)
    for first, stop in batches(starts, window_rows):
        begin, end = starts[first], starts[stop]
        if end - begin > window_rows:
            found = _walk(row_ids[begin:end], gather, lowest, window_rows)
        else:
            found = _choose(row_ids[begin:end], starts[first : stop + 1] - begin, gather, lowest)
        witness[begin:end], similarity[begin:end] = found
    return Witnesses(witness, similarity)


def batches(starts: np.ndarray, window_rows: int) -> Iterator[tuple[int, int]]:
    """Yield groups, first and stop, that are read together: one, or several of few rows."""
    first = 0
    while first + 1 < len(starts):
        most = window_rows if starts[first + 1] - starts[first] > PAIRWISE_ROWS else _READ_ROWS
        stop = int(np.searchsorted(starts, starts[first] + most, "right")) - 1
        stop = max(stop, first + 1)
        large = np.flatnonzero(np.diff(starts[first : stop + 1]) > PAIRWISE_ROWS)
        if len(large):
            stop = first + max(int(large[0]), 1)
        yield first, stop
        first = stop


def _choose(
    row_ids: np.ndarray, starts: np.ndarray, gather: Gather, lowest: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Find the witnesses of groups of one window each; more than one only where all are small."""
    ids = np.sort(row_ids)
    place = np.searchsorted(ids, row_ids)
    if len(starts) == 2:
        rows = exact_rows(gather(ids))
        chosen = _cover(near_pairs(rows, rows, lowest))
        similarity = cosine_pairs(rows, rows, np.arange(len(ids)), chosen)
        similarity[chosen == np.arange(len(ids))] = 1
        return ids[chosen][place], similarity[place]
    order = _sorted_inside(row_ids, starts)
    rows = exact_rows(gather(ids))
    place = place[order]  # of the rows in the order of the groups, then by row_id
    i, j = pairs_inside(starts)
    cosines = cosine_pairs(rows, rows, place[i], place[j])
    chosen, similarity = _cover_groups(starts, cosines, float(lowest))
    witness, found = row_ids.copy(), np.ones(len(row_ids), np.float32)
    witness[order], found[order] = row_ids[order][chosen], similarity
    return witness, found


def _walk(
    row_ids: np.ndarray, gather: Gather, lowest: np.float32, window_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the witnesses of one group of several windows."""
    witness, similarity = row_ids.copy(), np.ones(len(row_ids), np.float32)
    carried_ids, carried_counts = np.empty(0, np.int64), np.empty(0, np.int64)
    carried: np.ndarray | None = None
    for begin in range(0, len(row_ids), window_rows):
        place = begin + np.argsort(row_ids[begin : begin + window_rows])
        ids = row_ids[place]
        rows = exact_rows(gather(ids))
        if carried is None:
            carried = rows[:0]
        carried = carried.astype(np.result_type(carried, rows), copy=False)
        near = near_pairs(carried, rows, lowest)
        covered = near.any(axis=0)
        by = near[:, covered].argmax(axis=0) if len(carried) else np.empty(0, np.int64)
        own, rest = np.flatnonzero(covered), np.flatnonzero(~covered)
        witness[place[own]] = carried_ids[by]
        similarity[place[own]] = cosine_pairs(carried, rows, by, own)
        left = rows[rest]
        chosen = _cover(near_pairs(left, left, lowest))
        dropped = np.flatnonzero(chosen != np.arange(len(rest)))
        witness[place[rest]] = ids[rest][chosen]
        similarity[place[rest[dropped]]] = cosine_pairs(left, left, dropped, chosen[dropped])
        stays = np.flatnonzero(chosen == np.arange(len(rest)))
        all_ids = np.concatenate([carried_ids, ids[rest][stays]])
        counts = np.concatenate(
            [
                carried_counts + np.bincount(by, minlength=len(carried_ids)),
                np.bincount(chosen, minlength=len(rest))[stays],
            ]
        )
        best = np.lexsort((all_ids, -counts))[:_CARRIED_ROWS]
        carried = np.concatenate([carried, left[stays]])[best]
        carried_ids, carried_counts = all_ids[best], counts[best]
    return witness, similarity


def near_pairs(left: np.ndarray, right: np.ndarray, lowest: np.float32) -> np.ndarray:
    """Return which pairs are near: bool, shape (left, right); rows as `exact_rows` gives them."""
    units = _units(left)
    products = units @ (units if left is right else _units(right)).T
    # Bound of the rounding of a product of two unit rows, twice; few pairs lie so close.
    slack = np.float32((left.shape[1] + 16) * 2.0**-23)
    near = products >= lowest + slack
    i, j = np.nonzero((products >= lowest - slack) & ~near)
    if left is right:  # each pair once; such a product is symmetric
        i, j = i[i <= j], j[i <= j]
        decided = cosine_pairs(left, right, i, j) >= lowest
        near[i, j] = near[j, i] = decided
        np.fill_diagonal(near, True)
    else:
        near[i, j] = cosine_pairs(left, right, i, j) >= lowest
    return near


def _units(rows: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / lengths[:, None]).astype(np.float32)


def _sorted_inside(row_ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the order that sorts the rows of each group."""
    return np.lexsort((row_ids, np.repeat(np.arange(len(starts) - 1), np.diff(starts))))


@numba.njit(cache=True, nogil=True)
def pairs_inside(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs i < j of each group, in order."""
    count = 0
    for group in range(len(starts) - 1):
        rows = starts[group + 1] - starts[group]
        count += rows * (rows - 1) // 2
    i, j = np.empty(count, np.int64), np.empty(count, np.int64)
    pair = 0
    for group in range(len(starts) - 1):
        for x in range(starts[group], starts[group + 1]):
            for y in range(x + 1, starts[group + 1]):
                i[pair], j[pair] = x, y
                pair += 1
    return i, j


@numba.njit(cache=True, nogil=True)
def _cover_groups(
    starts: np.ndarray, cosines: np.ndarray, lowest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of small groups the one that stands for it, and their cosine."""
    chosen = np.empty(starts[-1], np.int64)
    similarity = np.ones(starts[-1], np.float32)
    pair = 0
    for group in range(len(starts) - 1):
        begin, rows = starts[group], starts[group + 1] - starts[group]
        known = np.ones((rows, rows), np.float32)
        for x in range(rows):
            for y in range(x + 1, rows):
                known[x, y] = known[y, x] = cosines[pair]
                pair += 1
        covers = _cover(known >= lowest)
        for x in range(rows):
            chosen[begin + x] = begin + covers[x]
            similarity[begin + x] = known[x, covers[x]]
    return chosen, similarity


@numba.njit(cache=True, nogil=True)
def _cover(near: np.ndarray) -> np.ndarray:
    """Return for each row the one that stands for it: itself where it stays.

    ``near``: bool, symmetric, true on the diagonal.
    """
    rows = len(near)
    chosen = np.full(rows, -1, np.int64)
    gain = np.zeros(rows, np.int64)  # rows without a witness that it is near
    for x in range(rows):
        for y in range(rows):
            gain[x] += near[x, y]
    while True:
        best, most = -1, 0
        for x in range(rows):
            if chosen[x] < 0 and gain[x] > most:
                best, most = x, gain[x]
        if best < 0:
            return chosen
        for x in range(rows):
            if near[best, x] and chosen[x] < 0:
                chosen[x] = best
                for y in range(rows):
                    gain[y] -= near[x, y]
