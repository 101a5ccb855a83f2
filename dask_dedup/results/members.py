"""Rows of clusters of two or more: their similarity to the representative, and their witness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from dask_dedup.data.part_list import PartList
from dask_dedup.data.part_rows import PartRows
from dask_dedup.results.sizes import COMPARED_BYTES
from dask_dedup.results.witness import find_witnesses
from dask_dedup.results.witness_files import dropped_rows
from dask_dedup.results.witness_groups import group_rows
from dask_dedup.schema import LABELS
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows

__all__ = ["compare_members", "find_dropped", "no_members", "rows_below", "with_witnesses"]


def compare_members(
    labels: pd.DataFrame, stored: PartRows, read_bytes: int = COMPARED_BYTES
) -> pd.DataFrame:
    """Add ``similarity``, float32, to LABELS: of each row to the representative of its cluster.

    Both are read, singly: as many rows as there are duplicates, and their representatives.

    Parameters
    ----------
    labels : DataFrame
        LABELS.
    stored : PartRows
        Of the data set.
    read_bytes : int
        Of rows at a time.
    """
    row_ids, cluster_ids = labels.index.to_numpy(), labels["cluster_id"].to_numpy()
    similarity = np.ones(len(labels), np.float32)
    others = np.flatnonzero(cluster_ids != row_ids)
    step = max(1, read_bytes // (stored.dim * stored.dtype.itemsize))
    for start in range(0, len(others), step):
        own = others[start : start + step]
        wanted, back = np.unique(cluster_ids[own], return_inverse=True)
        rows = exact_rows(stored.gather(row_ids[own]))
        representatives = exact_rows(stored.gather(wanted))
        similarity[own] = cosine_pairs(rows, representatives, np.arange(len(own)), back)
    return labels.assign(similarity=similarity)


def rows_below(members: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows that their representative is no witness of: ``row_id``, ``cluster_id``."""
    below = members["similarity"].to_numpy() < np.float32(threshold)
    return members.loc[below, ["cluster_id"]].reset_index()


def with_witnesses(
    members: pd.DataFrame, dropped: pd.DataFrame | None, threshold: float | None
) -> pd.DataFrame:
    """Add ``witness_row_id``, the row itself where it stays, and ``witness_similarity``.

    Parameters
    ----------
    members : DataFrame
        From `compare_members`.
    dropped : DataFrame, optional
        From `dask_dedup.results.witness_files.dropped_rows`: of rows below the threshold, those
        that have a witness; others do no harm. None: a representative stands for all of its
        cluster, however unlike they are.
    threshold : float, optional
        With ``dropped``.
    """
    witness = members["cluster_id"].to_numpy().copy()
    similarity = members["similarity"].to_numpy().copy()
    if dropped is not None and threshold is not None:
        below = np.flatnonzero(similarity < np.float32(threshold))
        row_ids = members.index.to_numpy()[below]
        witness[below], similarity[below] = row_ids, 1
        place = dropped["row_id"].searchsorted(row_ids)
        found = np.flatnonzero(place < len(dropped))
        found = found[dropped["row_id"].to_numpy()[place[found]] == row_ids[found]]
        witness[below[found]] = dropped["witness_row_id"].to_numpy()[place[found]]
        similarity[below[found]] = dropped["witness_similarity"].to_numpy()[place[found]]
    return members.assign(witness_row_id=witness, witness_similarity=similarity)


def no_members() -> pd.DataFrame:
    """Return what `with_witnesses` returns where no row has a duplicate."""
    none = LABELS.assign(similarity=np.empty(0, np.float32))
    return with_witnesses(none, None, None)


def find_dropped(
    below: Sequence[pd.DataFrame],
    forest: Iterable[pd.DataFrame],
    threshold: float,
    stored: PartList,
) -> pd.DataFrame:
    """Find witnesses for rows from `rows_below`, all at once: see `dropped_rows`.

    ``forest``: FOREST; edges below the threshold are passed over.
    """
    rows = pd.concat(below, ignore_index=True)
    lowest = np.float32(threshold)

    def edges() -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for frame in forest:
            some = frame[frame["similarity"] >= lowest]
            yield tuple(some[name].to_numpy() for name in ("src", "dst", "similarity"))

    groups = group_rows(rows["row_id"].to_numpy(), rows["cluster_id"].to_numpy(), edges)
    found = find_witnesses(groups.row_ids, groups.starts, stored.rows.gather, threshold)
    return dropped_rows(groups.row_ids, found)
