"""Verified pairs of one task, collected as edges and contracted whenever there are too many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["KEPT_EDGES", "Contract", "EdgeBuffer"]

KEPT_EDGES = 1 << 21  # edges kept before they are contracted

#: Positions to keep of edges (src, dst, similarity) with src < dst, without loss of components.
Contract = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class EdgeBuffer:
    """Edges with ``src < dst``: ids of rows, or any numbers that stand for them.

    Parameters
    ----------
    contract : callable or None
        Drops edges without changing the components at any threshold, such as
        `dask_dedup.graph.forest.spanning_edges`; None keeps all.
    most_edges : int
        Contracted as soon as so many are held.

    Attributes
    ----------
    pairs : int
        How many have been added.
    """

    def __init__(self, contract: Contract | None, most_edges: int = KEPT_EDGES) -> None:
        self.contract = contract
        self.most_edges = most_edges
        self.pairs = 0
        self._edges: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._held = 0

    def add(self, one: np.ndarray, other: np.ndarray, similarity: np.ndarray) -> None:
        """Take pairs in either direction: integers and float32, shape (pairs,)."""
        self._edges.append((np.minimum(one, other), np.maximum(one, other), similarity))
        self.pairs += len(one)
        self._held += len(one)
        if self.contract is not None and self._held >= self.most_edges:
            self._edges = [self.edges()]
            self._held = len(self._edges[0][0])

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``src``, ``dst`` and ``similarity`` of all, contracted."""
        if not self._edges:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        src, dst, similarity = (np.concatenate(side) for side in zip(*self._edges, strict=True))
        if self.contract is not None:
            kept = self.contract(src, dst, similarity)
            src, dst, similarity = src[kept], dst[kept], similarity[kept]
        return src, dst, similarity
