"""The last word on who stays: at most so many rows of a cluster, and no row that is unwanted.

1. Of the rows that stay, those past the limit go, the last by rank first; protected ones never.
2. They, the rows whose witness went, and unwanted rows without one get the most similar row of
   those that stay in their cluster, near or not; of equals, the first by rank.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from dask_dedup.data.part_rows import PartRows
from dask_dedup.results.roles import NOT_DUPLICATE, PROTECTED
from dask_dedup.results.sizes import COMPARED_BYTES
from dask_dedup.results.witness_files import Witnesses, dropped_rows
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows

__all__ = ["SETTLED", "rows_to_settle", "settle"]

#: Columns of the rows that are looked at, beside ``row_id``.
SETTLED = ["cluster_id", "rank", "role", "first_row_id", "witness_row_id"]


def rows_to_settle(members: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that `settle` decides on: all but the first of a cluster, and its followers.

    ``members``: ranked, from `dask_dedup.results.members.with_witnesses`.
    """
    first = members["first_row_id"].to_numpy()
    is_other = (members["witness_row_id"].to_numpy() != first) | (first < 0)
    is_other &= (members["role"] != NOT_DUPLICATE).to_numpy()
    return members.loc[is_other, SETTLED].reset_index()


def settle(
    rows: pd.DataFrame, most: int, stored: PartRows, read_bytes: int = COMPARED_BYTES
) -> pd.DataFrame:
    """Decide on the rows of whole clusters.

    Parameters
    ----------
    rows : DataFrame
        From `rows_to_settle`.
    most : int
        Rows of a cluster that stay, protected ones beyond it; 0: any number.
    stored : PartRows
        Of the data set.
    read_bytes : int
        Of rows at a time.

    Returns
    -------
    DataFrame
        As `dask_dedup.results.witness_files.dropped_rows`, of rows that get another witness: -1,
        and a similarity of -1, where nothing of the cluster stays.
    """
    rows = rows.sort_values(["cluster_id", "rank"], ignore_index=True)
    row_ids, clusters = rows["row_id"].to_numpy(), rows["cluster_id"].to_numpy()
    witness = rows["witness_row_id"].to_numpy()
    stays = witness == row_ids
    if most:
        starts = np.flatnonzero(np.diff(clusters, prepend=-1))
        before = np.cumsum(stays) - stays  # of the rows that stay, in all clusters before and here
        place = before - np.repeat(before[starts], np.diff(starts, append=len(rows)))
        stays &= (rows["role"] == PROTECTED).to_numpy() | (place < most - 1)  # the first stays, too
    gone = np.sort(row_ids[(witness == row_ids) & ~stays])
    is_open = (witness == -1) | np.isin(witness, gone)
    found = Witnesses(np.full(len(rows), -1), np.full(len(rows), -1, np.float32))
    starts = np.flatnonzero(np.diff(clusters, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), len(rows)]):
        own = np.arange(start, stop)
        wanted = own[is_open[own]]
        if not len(wanted):
            continue
        first = int(rows["first_row_id"].iat[start])
        candidates = row_ids[own[stays[own]]]
        if first >= 0:
            candidates = np.append(first, candidates)
        best = _most_similar(row_ids[wanted], candidates, stored, read_bytes)
        found.witness[wanted], found.similarity[wanted] = best
    opened = np.flatnonzero(is_open)
    return dropped_rows(row_ids[opened], Witnesses(found.witness[opened], found.similarity[opened]))


def _most_similar(
    row_ids: np.ndarray, candidates: np.ndarray, stored: PartRows, read_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the most similar candidate of each row, the first of equals, and the similarity."""
    best = np.full(len(row_ids), -1)
    similarity = np.full(len(row_ids), -1, np.float32)
    step = max(1, read_bytes // (stored.dim * stored.dtype.itemsize))
    for low in range(0, len(candidates), step):
        others = candidates[low : low + step]
        right = _gather(others, stored)
        for start in range(0, len(row_ids), step):
            own = row_ids[start : start + step]
            left = _gather(own, stored)
            place = np.arange(start, start + len(own))
            for j in range(len(others)):
                cosines = cosine_pairs(left, right, np.arange(len(own)), np.full(len(own), j))
                better = (cosines > similarity[place]) | (best[place] < 0)
                best[place[better]], similarity[place[better]] = others[j], cosines[better]
    return best, similarity


def _gather(row_ids: np.ndarray, stored: PartRows) -> np.ndarray:
    ids, back = np.unique(row_ids, return_inverse=True)
    return exact_rows(stored.gather(ids))[back]
