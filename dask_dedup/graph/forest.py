"""The maximum spanning forest of edges: Kruskal over one strict total order.

Edges are ordered by falling similarity, then ``src``, then ``dst``. The forest F of a set of edges
in this order keeps its components at every threshold, and F(A ∪ B) = F(F(A) ∪ F(B)): tasks contract
what they found, forests merge in any order, and one forest answers every threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import pandas as pd

from dask_dedup.graph.edge_order import edge_order, falling_key
from dask_dedup.graph.forest_range import combined_range, range_of, with_range
from dask_dedup.schema import EDGES, LABELS, check_frame

__all__ = ["forest_of_edges", "label_forest", "merge_forests", "spanning_edges"]

_BAND_EDGES = 1 << 16  # edges that are sorted at once without looking for a band


def forest_of_edges(edges: pd.DataFrame) -> pd.DataFrame:
    """Contract edges to their maximum spanning forest.

    Parameters
    ----------
    edges : DataFrame
        EDGES; repeated edges and edges in either direction do no harm.

    Returns
    -------
    DataFrame
        FOREST: a subset of the edges with ``src < dst``, in the forest's order.
    """
    check_frame(edges, EDGES, "edges to contract")
    one, other = edges["src"].to_numpy(), edges["dst"].to_numpy()
    src, dst = np.minimum(one, other), np.maximum(one, other)
    similarity = edges["similarity"].to_numpy()
    kept = spanning_edges(src, dst, similarity)
    forest = pd.DataFrame({"src": src[kept], "dst": dst[kept], "similarity": similarity[kept]})
    return with_range(forest, range_of(edges))


def spanning_edges(src: np.ndarray, dst: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Return the positions of the edges of the maximum spanning forest, in the forest's order.

    Kruskal in bands: the edges of highest similarity are sorted and joined first; of the others,
    those inside a tree are dropped unsorted, and the rest is treated alike. In dense groups nearly
    all edges are dropped.

    Parameters
    ----------
    src, dst : int64 arrays, shape (edges,)
        ``src < dst``.
    similarity : float32 array, shape (edges,)
    """
    a, b, nodes = _local_ids(src, dst)
    parent = np.arange(nodes)
    waiting = np.arange(len(src))
    kept = []
    while len(waiting):
        waiting_similarity = similarity[waiting]
        if len(waiting) > _BAND_EDGES:
            rank = len(waiting) // 8
            pivot = np.partition(waiting_similarity, len(waiting) - rank)[len(waiting) - rank]
            high = waiting_similarity >= pivot  # equal similarities stay in one band
            band, waiting = waiting[high], waiting[~high]
        else:
            band, waiting = waiting, waiting[:0]
        band = band[edge_order(falling_key(similarity[band]), a[band], b[band])]
        kept.append(band[_join_trees(parent, a, b, band)])
        waiting = waiting[_between_trees(parent, a, b, waiting)]
    return np.concatenate(kept) if kept else waiting


def merge_forests(forests: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the maximum spanning forest of several forests (or edge sets): FOREST."""
    filled = [forest for forest in forests if len(forest)]
    merged = forest_of_edges(pd.concat(filled, ignore_index=True) if filled else EDGES)
    return with_range(merged, combined_range(map(range_of, forests)))


def label_forest(forest: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Label the components of a forest's edges at or above a threshold.

    Parameters
    ----------
    forest : DataFrame
        FOREST (any edges will do).
    threshold : float
        Cosine; compared as float32, "at least".

    Returns
    -------
    DataFrame
        LABELS, sorted by ``row_id``: only rows in clusters of two or more.

    Raises
    ------
    SettingsError
        The forest carries a range of thresholds that this one is outside of.
    """
    check_frame(forest, EDGES, "forest to label")
    if (known := range_of(forest)) is not None:
        known.check(threshold, "the forest")
    linked = forest["similarity"].to_numpy() >= np.float32(threshold)
    src, dst = forest["src"].to_numpy()[linked], forest["dst"].to_numpy()[linked]
    ids, local = np.unique(np.concatenate([src, dst]), return_inverse=True)
    root = _roots(local[: len(src)], local[len(src) :], len(ids))
    sizes = np.bincount(root, minlength=len(ids))
    return check_frame(
        pd.DataFrame(
            {"cluster_id": ids[root], "cluster_size": sizes[root].astype(np.int64)},
            index=pd.Index(ids, name="row_id"),
        ),
        LABELS,
        "labels",
    )


def _local_ids(src: np.ndarray, dst: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the ends as small numbers in the same order, and a bound on them."""
    if not len(src):
        return src, dst, 0
    lowest = src.min()
    nodes = int(dst.max() - lowest) + 1
    if nodes <= 8 * len(src):  # dense enough: no need to look every id up
        return src - lowest, dst - lowest, nodes
    ids, local = np.unique(np.concatenate([src, dst]), return_inverse=True)
    return local[: len(src)], local[len(src) :], len(ids)


@numba.njit(cache=True, nogil=True)
def _find(parent: np.ndarray, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(cache=True, nogil=True)
def _join_trees(parent: np.ndarray, a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return which of some edges, in this order, join two trees; ``parent`` is changed."""
    joins = np.zeros(len(edges), np.bool_)
    for i in range(len(edges)):
        x, y = _find(parent, a[edges[i]]), _find(parent, b[edges[i]])
        if x != y:
            joins[i] = True
            if x < y:
                parent[y] = x
            else:
                parent[x] = y
    return joins


@numba.njit(cache=True, nogil=True)
def _between_trees(
    parent: np.ndarray, a: np.ndarray, b: np.ndarray, edges: np.ndarray
) -> np.ndarray:
    """Return which of some edges lie between two trees."""
    between = np.empty(len(edges), np.bool_)
    for i in range(len(edges)):
        between[i] = _find(parent, a[edges[i]]) != _find(parent, b[edges[i]])
    return between


@numba.njit(cache=True, nogil=True)
def _roots(a: np.ndarray, b: np.ndarray, nodes: int) -> np.ndarray:
    """Return for each node the smallest node of its component."""
    parent = np.arange(nodes)
    for edge in range(len(a)):
        x, y = _find(parent, a[edge]), _find(parent, b[edge])
        if x < y:
            parent[y] = x
        else:
            parent[x] = y
    for node in range(nodes):
        parent[node] = _find(parent, node)
    return parent
