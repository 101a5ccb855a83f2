"""The true pairs of the audit's queries: of each query at most so many, those of smallest hash.

The hash is that of the row, so which pairs are kept is the same for any spans, in any order. A
query that has enough pairs turns away rows of a larger hash than it holds: most of a giant group is
then neither compared nor kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.schema import EDGES
from dask_dedup.storage.files import read_frame
from dask_dedup.vectors.sample import hash_rows

__all__ = ["AUDIT_PURPOSE", "PAIRS_PER_QUERY", "PairSample", "read_pairs"]

AUDIT_PURPOSE = 3  # of the sample: see vectors.sample
PAIRS_PER_QUERY = 10_000  # one giant group must not fill the memory
_WAITING_PAIRS = 1 << 20  # at least, before those that are too many go
_LARGEST = np.uint64(2**64 - 1)  # hash
_NO_PAIRS = EDGES.rename(columns={"src": "query", "dst": "row_id"})


class PairSample:
    """Takes pairs of queries and rows, and keeps of each query those of smallest hash.

    Parameters
    ----------
    seed : int
        Of the hash.
    per_query : int
        Pairs that are kept.
    waiting : int
        Pairs beside those that are kept: in memory are at most so many more, or twice as many.
    """

    def __init__(
        self, seed: int, per_query: int = PAIRS_PER_QUERY, waiting: int = _WAITING_PAIRS
    ) -> None:
        self._seed, self._per_query, self._most_waiting = seed, per_query, waiting
        self._pieces: list[tuple[np.ndarray, ...]] = []
        self._kept = self._waiting = 0
        # The queries seen, sorted, and the largest hash that each still takes; once one has enough.
        self._highest: tuple[np.ndarray, np.ndarray] | None = None

    def wants(self, query: np.ndarray, row_id: np.ndarray) -> np.ndarray:
        """Return which pairs may still be kept: bool; the others need not be looked at."""
        if self._highest is None:
            return np.ones(len(query), bool)
        codes, found = pd.factorize(query)
        known, highest = self._highest
        place = np.minimum(np.searchsorted(known, found), len(known) - 1)
        limit = np.where(known[place] == found, highest[place], _LARGEST)
        return self._hash(row_id) <= limit[codes]

    def add(self, query: np.ndarray, row_id: np.ndarray, similarity: np.ndarray) -> None:
        """Take pairs, none of them twice: int64, int64, float32, each of shape (pairs,)."""
        self._pieces.append((query, row_id, similarity))
        self._waiting += len(query)
        if self._waiting > max(self._most_waiting, self._kept):
            self._limit()

    @property
    def held(self) -> int:
        """Pairs in memory."""
        return self._kept + self._waiting

    def frame(self) -> pd.DataFrame:
        """Return what is kept, in its order: ``query``, ``row_id``, ``similarity``."""
        self._limit()
        (columns,) = self._pieces
        return pd.DataFrame(dict(zip(_NO_PAIRS.columns, columns, strict=True)))

    def _limit(self) -> None:
        nothing = tuple(_NO_PAIRS[name].to_numpy() for name in _NO_PAIRS)
        columns = tuple(np.concatenate(c) for c in zip(nothing, *self._pieces, strict=True))
        codes, queries = pd.factorize(columns[0])
        counts = np.bincount(codes, minlength=len(queries))
        if len(counts) and counts.max() >= self._per_query:
            keys = self._hash(columns[1])
            small = codes.astype(np.min_scalar_type(len(counts)))  # 16 bits sort in two passes
            own = np.split(np.argsort(small, kind="stable"), np.cumsum(counts)[:-1])
            highest = np.full(len(counts), _LARGEST)
            last = self._per_query - 1
            for code in np.flatnonzero(counts >= self._per_query).tolist():
                highest[code] = np.partition(keys[own[code]], last)[last]
            keep = keys <= highest[codes]
            columns = tuple(column[keep] for column in columns)
            order = np.argsort(queries)
            self._highest = queries[order], highest[order]
        self._pieces = [columns]
        self._kept, self._waiting = len(columns[0]), 0

    def _hash(self, row_ids: np.ndarray) -> np.ndarray:
        return hash_rows(row_ids, self._seed, AUDIT_PURPOSE)  # no two rows have the same


def read_pairs(paths: Sequence[AnyPath], seed: int) -> pd.DataFrame:
    """Return the true pairs that collectors have written; of each query as many as one keeps.

    Parameters
    ----------
    paths : sequence of paths
        Of the spans, in their order.
    seed : int
        That of the collectors.
    """
    sample = PairSample(seed)
    for path in paths:
        pairs = read_frame(path)
        columns = [pairs[name].to_numpy() for name in _NO_PAIRS]
        wanted = sample.wants(columns[0], columns[1])
        sample.add(*(column[wanted] for column in columns))
    return sample.frame()
