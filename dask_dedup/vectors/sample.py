"""Seeded samples: the rows with the smallest hash of (seed, row_id), whatever the parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

__all__ = ["RowRange", "hash_rows", "sample_row_ids", "split_rows"]

_HASH_BLOCK = 1 << 16  # row ids hashed at a time: what fits into a cache takes half the time


def hash_rows(row_ids: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Hash row ids: splitmix64's finaliser over the id and a key of seed and purpose.

    Parameters
    ----------
    row_ids : int64 array
    seed : int
    purpose : int
        Different samples of one run draw independently.

    Returns
    -------
    uint64 array
    """
    key = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        x = row_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def sample_row_ids(rows: int, size: int, seed: int, purpose: int) -> np.ndarray:
    """Return the ``size`` row ids of smallest hash, sorted; all of them where there are fewer.

    Costs some 10 ns a row (20 s at 2e9) and memory for twice the sample.
    """
    if size >= rows:
        return np.arange(rows, dtype=np.int64)
    # Hashes are uniform: keep those below a bound that nearly surely holds `size` of them.
    bound = np.uint64(min(2.0**64 - 2048, (size + 8 * size**0.5 + 16) / rows * 2.0**64))
    while True:
        ids, hashes = [], []
        for start in range(0, rows, _HASH_BLOCK):
            block = np.arange(start, min(start + _HASH_BLOCK, rows), dtype=np.int64)
            hashed = hash_rows(block, seed, purpose)
            keep = hashed <= bound
            ids.append(block[keep])
            hashes.append(hashed[keep])
        chosen, key = np.concatenate(ids), np.concatenate(hashes)
        if len(chosen) >= size:
            return np.sort(chosen[np.argsort(key, kind="stable")[:size]])
        bound = np.uint64(2**64 - 1)


class RowRange(Protocol):
    """Neighbouring rows: a part, or a span of parts."""

    @property
    def row_start(self) -> int:
        """``row_id`` of the first row."""

    @property
    def row_stop(self) -> int:
        """``row_id`` after the last row."""


Range = TypeVar("Range", bound=RowRange)


def split_rows(row_ids: np.ndarray, ranges: Sequence[Range]) -> list[tuple[Range, np.ndarray]]:
    """Return the parts or spans that hold any of the sorted ``row_ids``, each with its own ids."""
    starts = np.searchsorted(row_ids, [one.row_start for one in ranges])
    stops = np.searchsorted(row_ids, [one.row_stop for one in ranges])
    return [(ranges[int(i)], row_ids[starts[i] : stops[i]]) for i in np.flatnonzero(stops > starts)]
