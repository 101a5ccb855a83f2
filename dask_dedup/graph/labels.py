"""Labels of a forest's components: over all rows in one array, or of the linked rows alone."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd

from dask_dedup.graph.forest import label_forest
from dask_dedup.graph.forest_file import check_answers
from dask_dedup.graph.stream import dense_parent, join_edges, read_edges
from dask_dedup.paths import AnyPath
from dask_dedup.schema import LABELS, check_frame
from dask_dedup.storage.files import read_frame

__all__ = ["DenseLabels", "SparseLabels", "component_sizes", "label_densely", "label_sparsely"]


@dataclass(frozen=True)
class DenseLabels:
    """Labels in arrays over all rows: 8 bytes a row, 16 past 2**32 rows.

    Attributes
    ----------
    cluster_ids : uint32 array, shape (rows,), int64 past 2**32 rows
        Smallest ``row_id`` of each row's component.
    sizes : array, shape (rows,)
        Rows of each component, at the position of its label.
    edges : int
        Edges that were followed.
    """

    cluster_ids: np.ndarray
    sizes: np.ndarray
    edges: int

    def between(self, start: int, stop: int) -> pd.DataFrame:
        """Return LABELS of the rows ``start`` to ``stop``."""
        cluster = self.cluster_ids[start:stop].astype(np.int64)
        size = self.sizes[cluster].astype(np.int64)
        shared = np.flatnonzero(size > 1)
        table = pd.DataFrame(
            {"cluster_id": cluster[shared], "cluster_size": size[shared]},
            index=pd.Index(start + shared, name="row_id"),
        )
        return check_frame(table, LABELS, "labels")

    def of(self, row_ids: np.ndarray) -> np.ndarray:
        """Return the clusters of some rows: int64."""
        return self.cluster_ids[row_ids].astype(np.int64)


@dataclass(frozen=True)
class SparseLabels:
    """Labels of the rows in clusters of two or more: some 100 bytes each.

    ``frame`` is LABELS; ``edges`` as in `DenseLabels`.
    """

    frame: pd.DataFrame
    edges: int

    def between(self, start: int, stop: int) -> pd.DataFrame:
        """Return LABELS of the rows ``start`` to ``stop``."""
        first, last = self.frame.index.searchsorted([start, stop])
        return self.frame.iloc[first:last]

    def of(self, row_ids: np.ndarray) -> np.ndarray:
        """Return the clusters of some rows: int64."""
        position = self.frame.index.get_indexer(row_ids)
        if not len(self.frame):
            return row_ids
        return np.where(position >= 0, self.frame["cluster_id"].to_numpy()[position], row_ids)


def label_densely(forest_path: AnyPath, rows: int, threshold: float) -> DenseLabels:
    """Label every row with its component among a forest's edges at or above a threshold.

    Parameters
    ----------
    forest_path : AnyPath
        FOREST in a parquet file; it is never in memory as a whole.
    rows : int
    threshold : float
        Cosine; compared as float32, "at least".
    """
    check_answers(forest_path, threshold)
    parent = dense_parent(rows)
    edges = 0
    for src, dst in read_edges(forest_path, rows, threshold):
        join_edges(parent, src.astype(parent.dtype), dst.astype(parent.dtype))
        edges += len(src)
    _flatten(parent)
    return DenseLabels(parent, component_sizes(parent), edges)


def label_sparsely(forest_path: AnyPath, threshold: float) -> SparseLabels:
    """Do what `label_densely` does in memory that grows with the edges, not with the rows."""
    check_answers(forest_path, threshold)
    forest = read_frame(forest_path)
    labels = label_forest(forest, threshold)
    return SparseLabels(labels, int((forest["similarity"] >= np.float32(threshold)).sum()))


def component_sizes(labels: np.ndarray) -> np.ndarray:
    """Count the rows of each component, at the position of its label: the dtype of the labels."""
    sizes = np.zeros_like(labels)
    _count(sizes, labels)
    return sizes


@numba.njit(cache=True, nogil=True)
def _count(counts: np.ndarray, labels: np.ndarray) -> None:
    """Count labels; ``counts`` is changed."""
    for i in range(len(labels)):
        counts[labels[i]] += 1


@numba.njit(cache=True, nogil=True)
def _flatten(parent: np.ndarray) -> None:
    """Turn parents into roots: a parent is smaller than its child, so its root is known by then."""
    for node in range(len(parent)):
        parent[node] = parent[parent[node]]
