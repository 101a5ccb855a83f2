"""Rows of clusters of two or more: their similarity to the representative, and their witness.

Where copies are ranked (`dask_dedup.results.order`), members have ``first_row_id``, ``rank`` and
``role``, too, and ``first_similarity``, to that first row: it stands where the representative does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from dask_dedup.data.part_list import PartList
from dask_dedup.data.part_rows import PartRows
from dask_dedup.results.roles import NOT_DUPLICATE, PROTECTED, UNWANTED
from dask_dedup.results.sizes import COMPARED_BYTES
from dask_dedup.results.witness_files import dropped_rows
from dask_dedup.results.witness_groups import group_rows
from dask_dedup.schema import LABELS

__all__ = ["compare_members", "find_dropped", "no_members", "rows_below", "with_witnesses"]


def compare_members(
    labels: pd.DataFrame, stored: PartRows, read_bytes: int = COMPARED_BYTES
) -> pd.DataFrame:
    """Add ``similarity``, float32, to LABELS: of each row to the representative of its cluster.

    Of ranked rows ``first_similarity``, too: -1 where their cluster has no first row. Both rows of
    a pair are read, singly: as many as there are duplicates, and their representatives.

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
    similarity = _similarity_to(row_ids, cluster_ids, stored, read_bytes)
    found = labels.assign(similarity=similarity)
    if "first_row_id" in labels:
        first_ids = labels["first_row_id"].to_numpy()
        others = np.flatnonzero((first_ids != cluster_ids) & (first_ids >= 0))
        first = np.where(first_ids < 0, np.float32(-1), similarity)
        first[others] = _similarity_to(row_ids[others], first_ids[others], stored, read_bytes)
        found["first_similarity"] = first
    return found


def _similarity_to(
    row_ids: np.ndarray, other_ids: np.ndarray, stored: PartRows, read_bytes: int
) -> np.ndarray:
    similarity = np.ones(len(row_ids), np.float32)
    others = np.flatnonzero(other_ids != row_ids)
    step = max(1, read_bytes // (stored.dim * stored.dtype.itemsize))
    from dask_dedup.vectors.cosines import cosine_pairs, exact_rows  # torch: workers alone load it

    for start in range(0, len(others), step):
        own = others[start : start + step]
        wanted, back = np.unique(other_ids[own], return_inverse=True)
        rows = exact_rows(stored.gather(row_ids[own]))
        representatives = exact_rows(stored.gather(wanted))
        similarity[own] = cosine_pairs(rows, representatives, np.arange(len(own)), back)
    return similarity


def rows_below(members: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows that their representative is no witness of: ``row_id``, ``cluster_id``.

    Of ranked rows those that the first of their cluster is no witness of, and protected ones beside
    it, which may be witnesses; with ``rank`` and ``role``.
    """
    lowest = np.float32(threshold)
    if "role" not in members:
        below = members["similarity"].to_numpy() < lowest
        return members.loc[below, ["cluster_id"]].reset_index()
    role, first = members["role"].to_numpy(), members["first_row_id"].to_numpy()
    below = (members["first_similarity"].to_numpy() < lowest) & (role != PROTECTED)
    below |= (role == PROTECTED) & (first != members.index.to_numpy())
    below &= (first >= 0) & (role != NOT_DUPLICATE)
    return members.loc[below, ["cluster_id", "rank", "role"]].reset_index()


def with_witnesses(
    members: pd.DataFrame,
    dropped: pd.DataFrame | None,
    threshold: float | None,
    settled: pd.DataFrame | None = None,
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
    settled : DataFrame, optional
        From `dask_dedup.results.settle.settle`: its witnesses are the last word.

    Returns
    -------
    DataFrame
        A witness of -1, and a similarity of -1: the row is dropped, and has none.
    """
    is_ranked = "role" in members
    row_ids = members.index.to_numpy()
    witness = members["first_row_id" if is_ranked else "cluster_id"].to_numpy().copy()
    similarity = members["first_similarity" if is_ranked else "similarity"].to_numpy().copy()
    role = members["role"].to_numpy() if is_ranked else np.zeros(len(members), np.uint8)
    if is_ranked:
        stays = np.flatnonzero((role == PROTECTED) | (role == NOT_DUPLICATE))
        witness[stays], similarity[stays] = row_ids[stays], 1
    if dropped is not None and threshold is not None:
        below = np.flatnonzero(similarity < np.float32(threshold))
        gone = is_ranked & (role[below] == UNWANTED)
        witness[below] = np.where(gone, -1, row_ids[below])
        similarity[below] = np.where(gone, np.float32(-1), np.float32(1))
        _put(dropped, row_ids, below, witness, similarity)
    if settled is not None:
        _put(settled, row_ids, np.arange(len(members)), witness, similarity)
    return members.assign(witness_row_id=witness, witness_similarity=similarity)


def _put(
    found: pd.DataFrame,
    row_ids: np.ndarray,
    places: np.ndarray,
    witness: np.ndarray,
    similarity: np.ndarray,
) -> None:
    """Take over the witnesses of those rows, of the ones at some places, that are in a frame."""
    place = found["row_id"].searchsorted(row_ids[places])
    there = np.flatnonzero(place < len(found))
    there = there[found["row_id"].to_numpy()[place[there]] == row_ids[places[there]]]
    witness[places[there]] = found["witness_row_id"].to_numpy()[place[there]]
    similarity[places[there]] = found["witness_similarity"].to_numpy()[place[there]]


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
    from dask_dedup.results.witness import find_witnesses

    rows = pd.concat(below, ignore_index=True)
    lowest = np.float32(threshold)

    def edges() -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for frame in forest:
            some = frame[frame["similarity"] >= lowest]
            yield tuple(some[name].to_numpy() for name in ("src", "dst", "similarity"))

    groups = group_rows(rows["row_id"].to_numpy(), rows["cluster_id"].to_numpy(), edges)
    found = find_witnesses(groups.row_ids, groups.starts, stored.rows.gather, threshold)
    return dropped_rows(groups.row_ids, found)
