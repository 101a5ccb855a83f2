"""The adaptive threshold on quantized distances, and what passes it.

Webster et al. compare a query with the rows as an index keeps them (asymmetric distances, ADC) and
take the query's distance to its own quantized version as the measure. Their inequality is not
published; ours is: x is a duplicate of q when

    d(q, x̂) <= T * d(q, q̂) + epsilon    or    d(q, x̂) <= d(q, q̂) + rounding,

squared Euclidean distances, and one direction of a pair suffices: a badly quantized query tolerates
more. The second condition lets rows of the query's own code pass whatever T, and so equal rows,
where d(q, q̂) is 0 as well. ``epsilon`` is the rounding of the distances; with verification also
what two rows at the threshold are apart, 2 - 2c, since d(q, x̂) is on average
|q - x|^2 + d(x, x̂).

1. Search the k nearest of each query in all shards.
2. A query of which all k pass is saturated: search it again with twice k, until one does not pass
   or nothing is left in its lists. So a group larger than k comes out whole; its cost grows with
   the square of its rows, its memory does not.
3. Pairs are verified at full dimension in batches, or carry 1 - d/2, and contract to a forest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dask_dedup.data.part_rows import PartRows
from dask_dedup.graph.edge_buffer import Contract, EdgeBuffer
from dask_dedup.ivf.faiss_index import search_shards, self_distances
from dask_dedup.ivf.sizes import READ_BYTES, RESULTS
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows

__all__ = ["AdaptiveRule", "AdcSearch", "PairEdges", "Passed"]


@dataclass(frozen=True)
class AdaptiveRule:
    """``d(q, x̂) <= max(tolerance * d(q, q̂) + epsilon, d(q, q̂) + rounding)``."""

    tolerance: float
    epsilon: float
    rounding: float

    def limits(self, self_distance: np.ndarray) -> np.ndarray:
        """Return the largest distance that passes, for each query: float32."""
        own = self_distance.astype(np.float64)
        limit = np.maximum(self.tolerance * own + self.epsilon, own + self.rounding)
        return limit.astype(np.float32)


class Passed(NamedTuple):
    """Pairs that passed: ``query`` position, ``row_id`` int64, ``distance`` float32; (pairs,)."""

    query: np.ndarray
    row_id: np.ndarray
    distance: np.ndarray


class AdcSearch:
    """Searches queries until none is saturated.

    Parameters
    ----------
    base : faiss.Index
    shards : sequence of faiss.Index
    rule : AdaptiveRule
    k, nprobe : int

    Attributes
    ----------
    saturated : int
        Queries of which all k results passed.
    largest_k : int
        Most results that any query was searched for.
    """

    def __init__(
        self, base: Any, shards: Sequence[Any], rule: AdaptiveRule, k: int, nprobe: int
    ) -> None:
        self.base = base
        self.shards = shards
        self.rule = rule
        self.k = k
        self.nprobe = nprobe
        self.rows = sum(shard.ntotal for shard in shards)
        self.saturated = 0
        self.largest_k = 0

    def search(self, compressed: np.ndarray, row_ids: np.ndarray) -> Iterator[Passed]:
        """Yield what passes for a block of queries, themselves left out.

        Parameters
        ----------
        compressed : float32 array, shape (n, dim)
            As the index takes them.
        row_ids : int64 array, shape (n,)
        """
        limits = self.rule.limits(self_distances(self.base, compressed))
        waiting, k = np.arange(len(compressed)), min(self.k, self.rows)
        while len(waiting) and k:
            self.largest_k = max(self.largest_k, k)
            full = []
            step = max(1, RESULTS // k)
            for begin in range(0, len(waiting), step):
                some = waiting[begin : begin + step]
                found = search_shards(self.base, self.shards, compressed[some], k, self.nprobe)
                passes = (found.row_ids >= 0) & (found.distances <= limits[some, None])
                more = passes[:, -1] if k < self.rows else np.zeros(len(some), np.bool_)
                full.append(some[more])
                passes &= ~more[:, None] & (found.row_ids != row_ids[some, None])
                query, position = np.nonzero(passes)
                yield Passed(
                    some[query], found.row_ids[query, position], found.distances[query, position]
                )
            waiting = np.concatenate(full)
            if k == min(self.k, self.rows):
                self.saturated += len(waiting)
            k = min(2 * k, self.rows)


class PairEdges:
    """Turns pairs that passed into edges, contracted from time to time.

    Parameters
    ----------
    stored : PartRows
        Of the data set, to read full rows from.
    threshold : float or None
        Cosine that a pair must have at full dimension; None takes pairs unverified, with
        1 - d/2 as their similarity, d the squared distance of unit vectors.
    contract : callable
        Drops edges without changing the components at any threshold: `spanning_edges`.

    Attributes
    ----------
    candidates : int
        Distinct pairs of a batch that were looked at.
    """

    def __init__(self, stored: PartRows, threshold: float | None, contract: Contract) -> None:
        self.stored = stored
        self.threshold = None if threshold is None else np.float32(threshold)
        self.candidates = 0
        self._batch = max(1, READ_BYTES // (8 * 2 * stored.dim))
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._waiting_pairs = 0
        self._edges = EdgeBuffer(contract)

    def add(self, one: np.ndarray, other: np.ndarray, distance: np.ndarray) -> None:
        """Take pairs of row ids, int64, with their squared distances, float32."""
        self._waiting.append((np.minimum(one, other), np.maximum(one, other), distance))
        self._waiting_pairs += len(one)
        if self._waiting_pairs >= self._batch:
            self._settle()

    @property
    def pairs(self) -> int:
        """Pairs that became edges."""
        return self._edges.pairs

    def finish(self) -> pd.DataFrame:
        """Return the edges of all pairs, contracted: EDGES."""
        self._settle()
        src, dst, similarity = self._edges.edges()
        return pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})

    def _settle(self) -> None:
        if not self._waiting:
            return
        src, dst, distance = (np.concatenate(side) for side in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_pairs = [], 0
        order = np.lexsort((distance, dst, src))  # of a pair seen both ways, the nearer comes first
        src, dst, distance = src[order], dst[order], distance[order]
        new = np.ones(len(src), np.bool_)
        new[1:] = (src[1:] != src[:-1]) | (dst[1:] != dst[:-1])
        src, dst, distance = src[new], dst[new], distance[new]
        self.candidates += len(src)
        for begin in range(0, len(src), self._batch):
            some = slice(begin, begin + self._batch)
            if self.threshold is None:
                similarity = np.clip(1.0 - distance[some] / 2.0, -1.0, 1.0).astype(np.float32)
                self._edges.add(src[some], dst[some], similarity)
                continue
            similarity = self._verify(src[some], dst[some])
            passed = similarity >= self.threshold
            self._edges.add(src[some][passed], dst[some][passed], similarity[passed])

    def _verify(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        ids, position = np.unique(np.concatenate([src, dst]), return_inverse=True)
        rows = exact_rows(self.stored.gather(ids))
        return cosine_pairs(rows, rows, position[: len(src)], position[len(src) :])
