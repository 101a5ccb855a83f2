"""Clusters at many thresholds from one pass over a forest, in falling order of similarity.

A union-find joins rows edge by edge, and before the first edge below a threshold its counts are
those of that threshold: what a labelling of its own would give. The root of a tree is its smallest
row, which is the representative of the cluster, so that the edges which end at it can be counted
beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numba
import numpy as np
import pandas as pd

__all__ = ["SweepCounts", "sweep_edges"]

_COLUMNS = (
    "threshold",
    "duplicates",
    "clusters_of_two_or_more",
    "largest_cluster",
    "without_edge_to_representative",
)


class SweepCounts:
    """Counts of a graph that grows by edges of falling similarity.

    Parameters
    ----------
    nodes : int
        Every id is below: 8 bytes each, 16 past 2**31.
    thresholds : sequence of float
        Cosines; compared as float32, "at least".
    """

    def __init__(self, nodes: int, thresholds: Sequence[float]) -> None:
        self._order = np.argsort(-np.asarray(thresholds, np.float32), kind="stable")
        self._falling = np.asarray(thresholds, np.float32)[self._order]
        self._thresholds = np.asarray(thresholds, np.float64)
        dtype = np.int32 if nodes < 1 << 31 else np.int64
        # Of a root the rows of its tree, negative; else the parent, which is smaller.
        self._parent = np.full(nodes, -1, dtype)
        self._linked = np.zeros(nodes, dtype)  # edges that end at a root
        # Edges, trees of two or more, rows of the largest, edges that end at roots.
        self._counts = np.array([0, 0, 0, 0], np.int64)
        self._found = np.zeros((len(thresholds), 4), np.int64)
        self._done = 0

    def add(self, similarity: np.ndarray, src: np.ndarray, dst: np.ndarray) -> None:
        """Add edges of a forest: in its order, after those of all calls before."""
        self._done = _add_edges(
            self._parent,
            self._linked,
            self._counts,
            self._found,
            self._falling,
            self._done,
            similarity,
            src,
            dst,
        )

    def frame(self) -> pd.DataFrame:
        """Return the counts at each threshold: see `sweep_edges`."""
        self._found[self._done :] = self._counts
        self._done = len(self._found)
        counts = np.empty_like(self._found)
        counts[self._order] = self._found
        edges, trees, largest, linked = counts.T
        columns = self._thresholds, edges, trees, largest, edges - linked
        return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))


def sweep_edges(
    pieces: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    nodes: int,
    thresholds: Sequence[float],
) -> pd.DataFrame:
    """Count clusters at many thresholds in one pass over a forest.

    Parameters
    ----------
    pieces : iterable of (similarity, src, dst)
        A forest's edges in its order, piece by piece.
    nodes : int
        Every ``src`` and ``dst`` is below.
    thresholds : sequence of float
        Cosines, in any order; compared as float32, "at least".

    Returns
    -------
    DataFrame
        One row per threshold, in their order: ``threshold``; ``duplicates``, rows less clusters;
        ``clusters_of_two_or_more``; ``largest_cluster``, rows of the largest, 0 where all rows are
        single; ``without_edge_to_representative``, the duplicates without an edge of the forest, at
        or above the threshold, to the smallest row of their cluster. (Of rows joined through others
        it is an upper bound: the forest lacks most pairs that are similar.)
    """
    counts = SweepCounts(nodes, thresholds)
    for piece in pieces:
        counts.add(*piece)
    return counts.frame()


@numba.njit(cache=True, nogil=True)
def _root(parent: np.ndarray, node: int) -> int:
    while parent[node] >= 0:
        above = parent[node]
        if parent[above] >= 0:
            parent[node] = parent[above]
        node = above
    return node


@numba.njit(cache=True, nogil=True)
def _add_edges(
    parent: np.ndarray,
    linked: np.ndarray,
    counts: np.ndarray,
    found: np.ndarray,
    thresholds: np.ndarray,
    done: int,
    similarity: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
) -> int:
    """Join trees edge by edge, noting the counts at each threshold passed; return how many are."""
    for i in range(len(src)):
        while done < len(thresholds) and similarity[i] < thresholds[done]:
            found[done] = counts
            done += 1
        one, other = _root(parent, src[i]), _root(parent, dst[i])
        if one == other:
            continue
        low, high = min(one, other), max(one, other)
        sizes = -parent[low], -parent[high]
        counts[0] += 1
        counts[1] += 1 - (sizes[0] > 1) - (sizes[1] > 1)
        counts[2] = max(counts[2], sizes[0] + sizes[1])
        counts[3] -= linked[low] + linked[high]
        if src[i] == low or dst[i] == low:
            linked[low] += 1
        counts[3] += linked[low]
        parent[low] += parent[high]
        parent[high] = low
    return done
