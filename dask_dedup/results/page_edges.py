"""Edges of the forest that the page shows: those nearest to the threshold, and long paths.

Row groups of the forest know their limits, so that of the edges near a threshold only theirs are
read; the paths of some clusters take one pass over the forest, and eight bytes a member.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from dask_dedup.graph.forest_file import forest_path
from dask_dedup.graph.stream import edges_between
from dask_dedup.graph.tree_path import HungTree, edges_inside, hang_tree
from dask_dedup.paths import AnyPath
from dask_dedup.results.cluster_files import ClusterFiles
from dask_dedup.schema import FOREST

__all__ = ["LongPath", "edges_near", "long_paths"]

_FIRST_STEP = 2.0**-14  # of similarity, that is looked at first


class LongPath(NamedTuple):
    """A path from a row to the representative of its cluster.

    Attributes
    ----------
    cluster_id, cluster_size : int
    row_id : int
        The row where it begins.
    is_longest : bool
        Whether no row of the cluster has more edges to the representative; else the row is the
        least similar one.
    edges : DataFrame
        As of `dask_dedup.graph.tree_path.path_between`.
    """

    cluster_id: int
    cluster_size: int
    row_id: int
    is_longest: bool
    edges: pd.DataFrame


def edges_near(out: AnyPath, rows: int, threshold: float, count: int, above: bool) -> pd.DataFrame:
    """Return the edges of the forest nearest to a threshold, on one side of it.

    Parameters
    ----------
    out : AnyPath
        Of the run.
    rows : int
        Of the data set.
    threshold : float
        Cosine; compared as float32.
    count : int
        How many, at most.
    above : bool
        Those at or above it; else those below.

    Returns
    -------
    DataFrame
        FOREST, the nearest first; of equal ones, those of the smallest ``src`` and ``dst``.
    """
    limit = np.float32(threshold)
    last = np.nextafter(limit, np.float32(0))
    step = np.float32(_FIRST_STEP)
    while True:
        low, high = (limit, limit + step) if above else (last - step, last)
        found = [FOREST]
        for src, dst, similarity in edges_between(forest_path(out), rows, float(low), float(high)):
            columns = dict(zip(FOREST.columns, (src, dst, similarity), strict=True))
            found = [_nearest(pd.concat([*found, pd.DataFrame(columns)]), count, above)]
        if len(found[0]) >= count or step > 2:
            return found[0].astype(FOREST.dtypes)
        step *= np.float32(4)


def _nearest(edges: pd.DataFrame, count: int, above: bool) -> pd.DataFrame:
    similarity = edges["similarity"].to_numpy()
    order = np.lexsort([edges["dst"], edges["src"], similarity if above else -similarity])
    return edges.iloc[order[:count]].reset_index(drop=True)


def long_paths(
    out: AnyPath, files: ClusterFiles, rows: pd.DataFrame, lowest: float
) -> list[LongPath]:
    """Return the paths of some rows to the representatives of their clusters.

    Parameters
    ----------
    out : AnyPath
    files : ClusterFiles
        Of its clusters.
    rows : DataFrame
        ``row_id``, ``cluster_id`` and ``cluster_size``: the least similar row of each of a few
        clusters.
    lowest : float
        Similarity from which on edges link.

    Returns
    -------
    list of LongPath
        Of each cluster that of its row, and the longest path, if that is of another row.
    """
    if not len(rows):
        return []
    clusters = np.sort(rows["cluster_id"].to_numpy())
    count = int(rows["cluster_size"].sum())
    members = files.rows_of_clusters(clusters, count)
    edges = edges_inside(forest_path(out), files.rows, members, lowest, count - len(clusters))
    found = []
    for row_id, cluster, size in rows[["row_id", "cluster_id", "cluster_size"]].itertuples(
        index=False
    ):
        tree = hang_tree(edges, cluster)
        ends = dict.fromkeys((row_id, _farthest(tree)))
        for i, end in enumerate(ends):
            path = tree.path(end)
            if path is not None:
                is_longest = len(ends) == 1 or i == 1
                found.append(LongPath(int(cluster), int(size), int(end), is_longest, path))
    return found


def _farthest(tree: HungTree) -> int:
    """Return the row with the most edges up to the root; the first of several."""
    above = tree.parent.copy()
    depth = (above >= 0).astype(np.int64)
    while True:  # twice as far at each turn
        going = np.flatnonzero(above >= 0)
        if not len(going):
            break
        depth[going] += depth[above[going]]
        above[going] = above[above[going]]
    is_inside = _reaches(tree)
    return int(tree.ids[np.argmax(np.where(is_inside, depth, -1))])


def _reaches(tree: HungTree) -> np.ndarray:
    """Return which rows hang on the root: others of other trees have no row above them."""
    inside = tree.parent >= 0
    inside[tree.root] = True
    return inside
