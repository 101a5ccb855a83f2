"""Exhaustive search of one group of queries, block by block of the rows: the kernel of the truth.

1. One matrix product in float32 compares the queries with a block. 2. A query whose best product
does not reach its bound (its k-th neighbour so far, or the threshold, less the product's error)
has nothing in the block. 3. What reaches the bound is computed in float64, pair by
pair, rounded to float32 and compared as that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from dask_dedup.errors import CapacityError
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows
from dask_dedup.vectors.unit import prepare_block

__all__ = ["BLOCK_ROWS", "DEFAULT_LIMITS", "ExactSearch", "SearchLimits"]

BLOCK_ROWS = 4096  #: Rows of a block that is compared at a time.

_NOTHING = -2.0  # below any cosine


@dataclass(frozen=True)
class SearchLimits:
    """How much of an exhaustive search is in memory at a time.

    Attributes
    ----------
    group_queries, group_rows : int
        Of one task.
    block_rows : int
        Rows compared at a time.
    verified_pairs : int
        Computed in float64 at a time.
    most_pairs : int
        Kept of one group of queries.
    """

    group_queries: int = 4096
    group_rows: int = 1_000_000
    block_rows: int = BLOCK_ROWS
    verified_pairs: int = 1 << 21  # 64 MB
    most_pairs: int = 10_000_000  # 240 MB


DEFAULT_LIMITS = SearchLimits()


class ExactSearch:
    """The k nearest rows of some queries, and all rows from a cosine on.

    A neighbour is another row than the query. Similarity is the cosine of the stored values in
    float64, rounded to float32; of equal ones, the lower ``row_id`` comes first.

    Parameters
    ----------
    stored : float array, shape (n, dim)
        The queries as stored. Unusable ones find nothing.
    query_ids : int64 array, shape (n,)
        Their ``row_id``; -1 for queries that are no rows of the data set.
    k : int
        Neighbours; 0 for none.
    threshold : float or None
        Cosine from which on all pairs are kept; compared as float32, "at least".
    once : bool
        Keep a pair only where ``row_id`` is above the query: all rows are queries.
    limits : SearchLimits
    """

    def __init__(
        self,
        stored: np.ndarray,
        query_ids: np.ndarray,
        k: int,
        threshold: float | None = None,
        once: bool = False,
        limits: SearchLimits = DEFAULT_LIMITS,
    ) -> None:
        self.limits = limits
        block = prepare_block(stored)
        usable = block.reason == 0
        self.query_ids, self.k, self.once = query_ids[usable], k, once
        self.threshold = None if threshold is None else np.float32(threshold)
        self._rows = exact_rows(stored[usable])
        self._units = block.units()
        self._slack = (stored.shape[1] + 10) * 2.0**-23  # twice the error of a product of units
        self._similarity = np.full((len(self.query_ids), k), _NOTHING, np.float32)
        self._row_ids = np.full((len(self.query_ids), k), np.iinfo(np.int64).max)
        self._pairs: list[pd.DataFrame] = []
        self._pair_count = 0

    def add(self, stored: np.ndarray, row_start: int) -> None:
        """Compare with a block of rows, as stored; ``row_start`` is the first one's ``row_id``.

        Raises
        ------
        CapacityError
            More pairs than a group of queries may have.
        """
        step = self.limits.block_rows
        for start in range(0, len(stored), step):
            self._compare(stored[start : start + step], row_start + start)

    def neighbours(self) -> pd.DataFrame:
        """Return ``query``, ``row_id`` int64, ``similarity`` float32; best first in each query."""
        query, rank = np.nonzero(self._similarity > _NOTHING)
        return pd.DataFrame(
            {
                "query": self.query_ids[query],
                "row_id": self._row_ids[query, rank],
                "similarity": self._similarity[query, rank],
            }
        )

    def pairs(self) -> pd.DataFrame:
        """Return ``query``, ``row_id`` int64, ``similarity`` float32, by query and ``row_id``."""
        empty = np.empty(0, np.int64)
        none = {"query": empty, "row_id": empty, "similarity": np.empty(0, np.float32)}
        found = pd.concat(self._pairs or [pd.DataFrame(none)], ignore_index=True)
        return found.sort_values(["query", "row_id"], ignore_index=True)

    def _compare(self, stored: np.ndarray, row_start: int) -> None:
        block = prepare_block(stored)
        product = torch.mm(self._units, (block.rows / block.lengths[:, None]).T)
        unusable = np.flatnonzero(block.reason)
        if len(unusable):
            product[:, torch.from_numpy(unusable)] = _NOTHING
        itself = self.query_ids - row_start
        inside = np.flatnonzero((itself >= 0) & (itself < len(stored)))
        product[torch.from_numpy(inside), torch.from_numpy(itself[inside])] = _NOTHING

        active = np.flatnonzero(product.amax(dim=1).numpy() >= self._bounds(slice(None)))
        if not len(active):
            return
        product = product[torch.from_numpy(active)]
        bound = self._bounds(active)
        if 0 < self.k < len(stored):
            nearest = torch.topk(product, self.k, dim=1).values[:, -1].numpy() - self._slack
            own = self._similarity[active, -1] - self._slack
            bound = np.maximum(nearest, own)
            if self.threshold is not None:
                bound = np.minimum(bound, self.threshold - self._slack)
        bound = np.maximum(bound, -1.5)  # an excluded product reaches no bound
        hits = product >= torch.from_numpy(bound.astype(np.float32))[:, None]
        rows = exact_rows(stored)
        counts = hits.sum(dim=1).numpy()
        group = (np.cumsum(counts) - counts) // self.limits.verified_pairs
        for number in np.unique(group[counts > 0]):
            of_group = np.flatnonzero(group == number)
            i, j = (side.numpy() for side in hits[torch.from_numpy(of_group)].nonzero().T)
            self._decide(active[of_group[i]], j, rows, row_start)

    def _bounds(self, queries: np.ndarray | slice) -> np.ndarray:
        """Return the product that a row must reach to matter to each query."""
        bounds = self._similarity[queries, -1] - self._slack if self.k else np.float32(2)
        if self.threshold is not None:
            bounds = np.minimum(bounds, self.threshold - self._slack)
        return np.broadcast_to(bounds, self.query_ids[queries].shape)

    def _decide(self, i: np.ndarray, j: np.ndarray, rows: np.ndarray, row_start: int) -> None:
        """Take in candidates: queries ``i`` (ascending) and rows ``j`` of the block."""
        similarity, row_ids = cosine_pairs(self._rows, rows, i, j), row_start + j
        if self.threshold is not None:
            kept = similarity >= self.threshold
            if self.once:
                kept &= row_ids > self.query_ids[i]
            self._pair_count += int(kept.sum())
            if self._pair_count > self.limits.most_pairs:
                raise CapacityError(
                    f"more than {self.limits.most_pairs:,} pairs at cosine {self.threshold:g} or "
                    f"above in one group of {len(self.query_ids):,} queries. Raise --threshold, or "
                    f"take fewer --queries."
                )
            found = {"query": self.query_ids[i[kept]], "row_id": row_ids[kept]}
            self._pairs.append(pd.DataFrame({**found, "similarity": similarity[kept]}))
        if self.k:
            touched = np.unique(i)
            query = np.concatenate([np.repeat(touched, self.k), i])
            similarity = np.concatenate([self._similarity[touched].ravel(), similarity])
            row_ids = np.concatenate([self._row_ids[touched].ravel(), row_ids])
            order = np.lexsort((row_ids, -similarity, query))
            first = np.searchsorted(query[order], touched)[:, None] + np.arange(self.k)
            self._similarity[touched] = similarity[order][first]
            self._row_ids[touched] = row_ids[order][first]
