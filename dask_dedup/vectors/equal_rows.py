"""Rows of a span whose stored bytes an earlier row has, found while the span streams by."""

from __future__ import annotations

import numba
import numpy as np

from dask_dedup.data.spans import Span

__all__ = ["EqualRows", "as_words", "hash_words"]

_GATHER_BYTES = 64 << 20  # rows compared at a time


class EqualRows:
    """Remembers the rows of one span; 32 bytes a row.

    Parameters
    ----------
    span : Span
        Of which blocks will come, each once, in order.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        slots = 1 << max(4, (2 * span.rows - 1).bit_length())
        self._hashes = np.zeros(slots, np.uint64)
        self._first = np.full(slots, -1, np.int64)

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
        words = as_words(stored)
        first = _meet(hash_words(words), usable, start, self._hashes, self._first)
        copies = np.flatnonzero(first != start + np.arange(len(first)))
        step = max(1, _GATHER_BYTES // stored[:1].nbytes) if len(stored) else 1
        for begin in range(0, len(copies), step):
            some = copies[begin : begin + step]
            leaders, back = np.unique(first[some], return_inverse=True)
            rows = self._span.embeddings.gather(self._span.row_start + leaders)
            theirs = as_words(rows.astype(stored.dtype, copy=False))[back]
            unequal = (words[some] != theirs).any(axis=1)  # equal hashes are only a hint
            first[some[unequal]] = start + some[unequal]
        return first


def as_words(stored: np.ndarray) -> np.ndarray:
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
def _meet(
    hashes: np.ndarray, usable: np.ndarray, start: int, table: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Return for each row the first one of the same hash, itself included; fill the table."""
    found = np.empty(len(hashes), np.int64)
    mask = np.uint64(len(table) - 1)
    for i in range(len(hashes)):
        found[i] = start + i
        if not usable[i]:
            continue
        slot = hashes[i] & mask
        while first[slot] >= 0 and table[slot] != hashes[i]:
            slot = (slot + np.uint64(1)) & mask
        if first[slot] < 0:
            table[slot], first[slot] = hashes[i], start + i
        found[i] = first[slot]
    return found
