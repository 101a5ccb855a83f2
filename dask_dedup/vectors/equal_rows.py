"""Equal rows: those whose hash an earlier one has, and of a span those that are its very bytes."""

from __future__ import annotations

import numba
import numpy as np

from dask_dedup.data.spans import Span

__all__ = ["EqualRows", "first_in_groups", "hash_words"]

_GATHER_BYTES = 64 << 20  # rows compared at a time


class EqualRows:
    """Keeps the hashes of a span's rows while its blocks are read; 24 to 40 bytes a row.

    Parameters
    ----------
    span : Span
        Of which blocks will come, each once, in order.

    Attributes
    ----------
    hashes : uint64 array, shape (span.rows,)
        Of the stored bytes, as far as the blocks have come.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self.hashes = np.empty(span.rows, np.uint64)
        self._slots = np.full(1 << max(4, (2 * span.rows - 1).bit_length()), -1)

    def look(self, start: int, stored: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """Return the position of the first row with the same bytes, for each row of a block.

        Parameters
        ----------
        start : int
            Position of the block's first row.
        stored : array, shape (n, dim)
        usable : bool array, shape (n,)
            The others are equal to nothing but themselves.

        Returns
        -------
        int64 array, shape (n,)
        """
        words = _as_words(stored)
        stop = start + len(words)
        self.hashes[start:stop] = hash_words(words)
        first = np.empty(len(words), np.int64)
        _meet(self.hashes, start, stop, usable, self._slots, first)
        copies = np.flatnonzero(first != start + np.arange(len(first)))
        step = max(1, _GATHER_BYTES // stored[:1].nbytes) if len(stored) else 1
        for begin in range(0, len(copies), step):
            some = copies[begin : begin + step]
            leaders, back = np.unique(first[some], return_inverse=True)
            rows = self._span.embeddings.gather(self._span.row_start + leaders)
            theirs = _as_words(rows.astype(stored.dtype, copy=False))[back]
            unequal = (words[some] != theirs).any(axis=1)  # equal hashes are only a hint
            first[some[unequal]] = start + some[unequal]
        return first


def _as_words(stored: np.ndarray) -> np.ndarray:
    """View rows as the widest unsigned integers that divide a row."""
    row_bytes = stored.shape[1] * stored.itemsize
    width = next(width for width in (8, 4, 2) if row_bytes % width == 0)
    return np.ascontiguousarray(stored).view(f"u{width}")


@numba.njit(cache=True, nogil=True)
def hash_words(words: np.ndarray) -> np.ndarray:
    """Hash the words of each row: multiply and shift, 64 bits.

    Four words at a time, each fourth on a chain of its own: the products need not wait for each
    other.
    """
    hashes = np.empty(words.shape[0], np.uint64)
    count = words.shape[1]
    fours = count - count % 4
    for i in range(words.shape[0]):
        a, b = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
        c, d = np.uint64(0x165667B19E3779F9), np.uint64(0x27D4EB2F165667C5)
        for j in range(0, fours, 4):
            a, b = _mix(a, words[i, j]), _mix(b, words[i, j + 1])
            c, d = _mix(c, words[i, j + 2]), _mix(d, words[i, j + 3])
        for j in range(fours, count):
            a = _mix(a, words[i, j])
        hashes[i] = _mix(_mix(_mix(a, b), c), d)
    return hashes


@numba.njit(cache=True, nogil=True)
def _mix(value: np.uint64, word: np.uint64) -> np.uint64:
    value = (value ^ np.uint64(word)) * np.uint64(0xFF51AFD7ED558CCD)
    return value ^ (value >> np.uint64(29))


@numba.njit(cache=True, nogil=True)
def first_in_groups(hashes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return for each row the first one of the same hash in its group: int64.

    The rows of group g are ``bounds[g]`` to ``bounds[g + 1]``.
    """
    first = np.empty(len(hashes), np.int64)
    most = 1
    for group in range(len(bounds) - 1):
        most = max(most, bounds[group + 1] - bounds[group])
    size = 1
    while size < 2 * most:
        size *= 2
    slots = np.empty(size, np.int64)
    for group in range(len(bounds) - 1):
        start, stop = bounds[group], bounds[group + 1]
        size = 1
        while size < 2 * (stop - start):
            size *= 2
        slots[:size] = -1
        _meet(hashes, start, stop, None, slots[:size], first[start:stop])
    return first


@numba.njit(cache=True, nogil=True)
def _meet(
    hashes: np.ndarray,
    start: int,
    stop: int,
    usable: np.ndarray | None,
    slots: np.ndarray,
    first: np.ndarray,
) -> None:
    """Find the first row of the same hash for the rows from ``start`` to ``stop``, themselves too.

    ``slots`` is a hash table of rows, -1 where there is none, and is filled; ``first`` and
    ``usable`` begin with the row ``start``. A row that is not usable is equal to none.
    """
    mask = len(slots) - 1
    for i in range(start, stop):
        first[i - start] = i
        if usable is not None:  # noqa: SIM102 - in one condition, numba would look into None
            if not usable[i - start]:
                continue
        slot = np.int64(hashes[i]) & mask
        while slots[slot] >= 0 and hashes[slots[slot]] != hashes[i]:
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot] = i
        first[i - start] = slots[slot]
