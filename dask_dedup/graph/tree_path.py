"""Paths in a forest: through which pairs two rows came together, and where that hangs weakest.

Between two rows of one tree there is one path. Its weakest edge is the highest threshold at which
the two are in one cluster: no other way through all pairs that were found has a higher one, which
is what makes the forest a maximum spanning one.

1. `edges_inside` gathers the edges of clusters whose rows are known: one pass, no array over all
   rows. `edges_joining` finds the tree of two rows at the threshold where it first holds both, with
   one array over all rows, 4 bytes each (8 past 2**32 rows): two passes.
2. `hang_tree` hangs such a tree on one of its rows; `path_between` walks it from the other one up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from dask_dedup.graph.edge_order import edge_order, falling_key
from dask_dedup.graph.forest import _find
from dask_dedup.graph.labels import _flatten
from dask_dedup.graph.stream import dense_parent, join_edges, read_weighted_edges
from dask_dedup.paths import AnyPath
from dask_dedup.schema import FOREST

__all__ = ["HungTree", "edges_inside", "edges_joining", "hang_tree", "path_between"]


class HungTree:
    """A tree that hangs on one of its rows.

    Parameters
    ----------
    ids : int64 array, shape (rows,)
        Sorted.
    parent : int array, shape (rows,)
        Position of the row above; negative of the root, and of rows of other trees.
    similarity : float32 array, shape (rows,)
        Of each row and the one above it.
    root : int
        Position of the root.
    """

    def __init__(
        self, ids: np.ndarray, parent: np.ndarray, similarity: np.ndarray, root: int
    ) -> None:
        self.ids, self.parent, self.similarity, self.root = ids, parent, similarity, root

    def path(self, row_id: int) -> pd.DataFrame | None:
        """Return the path from a row up to the root, as `path_between`."""
        node = int(np.searchsorted(self.ids, row_id))
        if node == len(self.ids) or self.ids[node] != row_id:
            return None
        nodes = [node]
        while nodes[-1] != self.root:
            node = int(self.parent[nodes[-1]])
            if node < 0:
                return None
            nodes.append(node)
        return _path_frame(self.ids[nodes], self.similarity[nodes[:-1]])


def path_between(edges: pd.DataFrame, row_id: int, other: int) -> pd.DataFrame | None:
    """Return the path between two rows of a forest.

    Parameters
    ----------
    edges : DataFrame
        FOREST, or the part of one that holds the tree.
    row_id, other : int

    Returns
    -------
    DataFrame or None
        An edge a row, from ``row_id`` to ``other``: ``from_row``, ``to_row`` int64, ``similarity``
        float32, ``is_weakest`` bool, true of one edge: of those of the least similarity, the last
        in the forest's order. Empty where the two are one; None where they are in different trees.
    """
    if row_id == other:
        return _path_frame(np.array([row_id], np.int64), np.empty(0, np.float32))
    return hang_tree(edges, other).path(row_id)


def hang_tree(edges: pd.DataFrame, root: int) -> HungTree:
    """Hang the tree of a row on that row.

    Parameters
    ----------
    edges : DataFrame
        FOREST, or a part of one.
    root : int
        ``row_id``; alone where no edge has it.
    """
    src, dst = edges["src"].to_numpy(), edges["dst"].to_numpy()
    ids, local = np.unique(np.concatenate([src, dst, [root]]), return_inverse=True)
    one, other = local[: len(src)], local[len(src) : -1]
    links = coo_array((np.ones(len(src), np.int8), (one, other)), shape=(len(ids), len(ids)))
    _, parent = breadth_first_order(links.tocsr(), local[-1], directed=False)
    similarity = np.zeros(len(ids), np.float32)
    # Each edge of the tree joins a row to the one above it: `one` below `other`, or the reverse.
    for below, above in ((one, other), (other, one)):
        is_up = parent[below] == above
        similarity[below[is_up]] = edges["similarity"].to_numpy()[is_up]
    return HungTree(ids, parent, similarity, int(local[-1]))


def edges_inside(
    path: AnyPath, rows: int, members: np.ndarray, threshold: float, expected: int
) -> pd.DataFrame:
    """Gather the edges of some clusters from a forest file, in one pass.

    Parameters
    ----------
    path : AnyPath
        FOREST in a parquet file.
    rows : int
        Of the data set.
    members : int64 array
        All rows of these clusters, sorted.
    threshold : float
        Cosine at which they are clusters; edges below are passed over.
    expected : int
        How many edges there are, rows less clusters: the pass ends with the last of them.

    Returns
    -------
    DataFrame
        FOREST.
    """
    found, count = [], 0
    for src, dst, similarity in read_weighted_edges(path, rows, threshold):
        place = np.searchsorted(members, src)
        place[place == len(members)] = 0
        chosen = members[place] == src if len(members) else np.zeros(len(src), np.bool_)
        found.append((src[chosen], dst[chosen], similarity[chosen]))
        count += len(found[-1][0])
        if count >= expected:
            break
    return _edge_frame(found)


def edges_joining(path: AnyPath, rows: int, row_id: int, other: int) -> pd.DataFrame | None:
    """Gather the edges of the tree that holds two rows, down to where it first holds both.

    Returns
    -------
    DataFrame or None
        FOREST; None where no threshold that was searched joins the two.
    """
    parent = dense_parent(rows)
    pieces = 0
    for src, dst, _ in read_weighted_edges(path, rows, -1.0):
        join_edges(parent, src.astype(parent.dtype), dst.astype(parent.dtype))
        pieces += 1
        if _find(parent, row_id) == _find(parent, other):
            break
    else:
        return None
    _flatten(parent)
    root = parent[row_id]
    found = []
    for src, dst, similarity in islice(read_weighted_edges(path, rows, -1.0), pieces):
        chosen = parent[src] == root
        found.append((src[chosen], dst[chosen], similarity[chosen]))
    return _edge_frame(found)


def _edge_frame(pieces: Sequence[tuple[np.ndarray, ...]]) -> pd.DataFrame:
    """Join pieces of ``src``, ``dst`` and ``similarity`` to FOREST."""
    columns = [np.concatenate(some) for some in zip(*pieces, strict=True)] if pieces else []
    frame = pd.DataFrame(dict(zip(FOREST.columns, columns, strict=True))) if columns else FOREST
    return frame.astype(FOREST.dtypes)


def _path_frame(row_ids: np.ndarray, similarity: np.ndarray) -> pd.DataFrame:
    """Return a path from its rows, one after the other, and the similarities between them."""
    one, other = row_ids[:-1].astype(np.int64), row_ids[1:].astype(np.int64)
    is_weakest = np.zeros(len(similarity), np.bool_)
    if len(similarity):
        low, high = np.minimum(one, other), np.maximum(one, other)
        is_weakest[edge_order(falling_key(similarity), low, high)[-1]] = True
    return pd.DataFrame(
        {"from_row": one, "to_row": other, "similarity": similarity, "is_weakest": is_weakest}
    )
