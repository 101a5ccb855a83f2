"""Groups of rows that are looked at together for witnesses: rows of one cluster each.

A cluster with few such rows is one group. In a large one, single linkage reaches far, and rows that
are near each other must be found without comparing all: the maximum spanning forest has them side
by side. So the rows of a large cluster are put into the order of a walk through its trees, depth
first, the most similar neighbour first, and cut into groups of at most 65,536. Rows that the forest
links at 1 count as one in the walk, since which of several equal rows are linked to each other is
not the same for any parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numba
import numpy as np
import pandas as pd

from dask_dedup.graph.forest import label_forest
from dask_dedup.results.sizes import WINDOW_ROWS

__all__ = ["GROUP_ROWS", "Groups", "group_rows"]

GROUP_ROWS = 1 << 16

#: Gives ``src``, ``dst`` and ``similarity`` of a forest's edges, piece by piece.
Edges = Callable[[], Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]]


class Groups(NamedTuple):
    """``row_ids`` int64, group after group; ``starts`` int64, with the number of rows behind."""

    row_ids: np.ndarray
    starts: np.ndarray

    def cut(self, rows: int) -> list[Groups]:
        """Return groups that have together at most so many rows, or one group."""
        pieces, first = [], 0
        while first + 1 < len(self.starts):
            stop = int(np.searchsorted(self.starts, self.starts[first] + rows, "right")) - 1
            stop = max(stop, first + 1)
            begin, end = self.starts[first], self.starts[stop]
            pieces.append(Groups(self.row_ids[begin:end], self.starts[first : stop + 1] - begin))
            first = stop
        return pieces


def group_rows(
    row_ids: np.ndarray,
    cluster_ids: np.ndarray,
    edges: Edges,
    is_fixed: np.ndarray | None = None,
    most: int = GROUP_ROWS,
    window_rows: int = WINDOW_ROWS,
) -> Groups:
    """Put rows into groups.

    Parameters
    ----------
    row_ids, cluster_ids : int64 arrays, shape (rows,)
        Rows that their representative is no witness of, and their clusters; in any order. The only
        one of its cluster is left out: it stays.
    edges : callable
        Gives the forest's edges from the threshold up. It is called only where a cluster has more
        than 1,024 such rows, and holds some 100 bytes for each of theirs then.
    is_fixed : bool array, optional
        Rows that stay in any case: clusters that have no others are left out.
    most : int
        Rows of a group.
    window_rows : int
        Rows of a cluster from which on it is put into the order of a walk.
    """
    if is_fixed is not None:
        some = np.isin(cluster_ids, cluster_ids[~is_fixed])
        row_ids, cluster_ids = row_ids[some], cluster_ids[some]
    order = np.lexsort((row_ids, cluster_ids))
    row_ids, cluster_ids = row_ids[order], cluster_ids[order]
    sizes = np.diff(np.flatnonzero(np.diff(cluster_ids, prepend=-1, append=-1)))
    are_several = np.repeat(sizes > 1, sizes)
    row_ids, cluster_ids, sizes = row_ids[are_several], cluster_ids[are_several], sizes[sizes > 1]
    large = np.flatnonzero(np.repeat(sizes > min(most, window_rows), sizes))
    if len(large):
        ids = np.sort(row_ids[large])
        walked = _walk_order(ids, *_edges_at(ids, edges))
        place = walked[np.searchsorted(ids, row_ids[large])]
        row_ids[large] = row_ids[large][np.lexsort((place, cluster_ids[large]))]
    pieces = -(-sizes // most)
    firsts, before = np.cumsum(sizes) - sizes, np.cumsum(pieces) - pieces
    place = np.arange(pieces.sum()) - np.repeat(before, pieces)  # of a piece in its cluster
    starts = np.repeat(firsts, pieces) + place * most
    return Groups(row_ids, np.append(starts, len(row_ids)).astype(np.int64))


def _edges_at(ids: np.ndarray, edges: Edges) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the edges with at least one end among the sorted ids."""
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    for src, dst, similarity in edges():
        some = _is_in(src, ids) | _is_in(dst, ids)
        found.append((src[some], dst[some], similarity[some]))
    src, dst, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return src, dst, similarity


def _is_in(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    place = np.searchsorted(ids, values)
    return ids[np.minimum(place, len(ids) - 1)] == values


def _walk_order(
    ids: np.ndarray, src: np.ndarray, dst: np.ndarray, similarity: np.ndarray
) -> np.ndarray:
    """Return the place of each of the sorted ids in a walk through the edges: int64."""
    equal = similarity == 1
    links = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})[equal]
    same = label_forest(links, 1.0)["cluster_id"]
    tree = [_first_of(ends[~equal], same) for ends in (src, dst)]
    own = _first_of(ids, same)
    nodes, local = np.unique(np.concatenate([*tree, own]), return_inverse=True)
    a, b = local[: len(tree[0])], local[len(tree[0]) : 2 * len(tree[0])]
    ends, others = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.lexsort((-others, np.tile(similarity[~equal], 2), ends))  # a stack turns it round
    starts = np.searchsorted(ends[order], np.arange(len(nodes) + 1))
    visited = _walk(starts, others[order])[local[2 * len(a) :]]
    place = np.empty(len(ids), np.int64)
    place[np.lexsort((ids, visited))] = np.arange(len(ids))
    return place


def _first_of(row_ids: np.ndarray, same: pd.Series) -> np.ndarray:
    """Return the smallest of the rows that count as one with each row."""
    place = same.index.get_indexer(row_ids)
    if not len(same):
        return row_ids
    return np.where(place >= 0, same.to_numpy()[place], row_ids)


@numba.njit(cache=True, nogil=True)
def _walk(starts: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return when a walk, depth first, comes to each node: a tree after the other.

    ``others``: the neighbours of each node, the one to go to first at the end.
    """
    nodes = len(starts) - 1
    visited = np.full(nodes, -1, np.int64)
    stack = np.empty(len(others) + 1, np.int64)
    time = 0
    for root in range(nodes):
        if visited[root] >= 0:
            continue
        stack[0], height = root, 1
        while height:
            height -= 1
            node = stack[height]
            if visited[node] >= 0:
                continue
            visited[node] = time
            time += 1
            for place in range(starts[node], starts[node + 1]):
                if visited[others[place]] < 0:
                    stack[height] = others[place]
                    height += 1
    return visited
