"""The order in which the rows of a cluster are wanted: which is the first, and what each one is."""

from __future__ import annotations

import numba
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.data.part_rows import PartRows
from dask_dedup.results.roles import ORDINARY
from dask_dedup.results.sizes import COMPARED_BYTES

__all__ = ["centre_cosines", "rank_members"]


def rank_members(
    cluster_ids: np.ndarray,
    row_ids: np.ndarray,
    roles: np.ndarray,
    keys: pa.ChunkedArray | pa.Array | None = None,
) -> pd.DataFrame:
    """Rank the rows of whole clusters: by role, then by key, then by ``row_id``.

    Parameters
    ----------
    cluster_ids, row_ids : int64 arrays, shape (rows,)
        In any order.
    roles : uint8 array, shape (rows,)
    keys : pyarrow.Array, optional
        Rising: the smallest is wanted most.

    Returns
    -------
    DataFrame
        By ``cluster_id``, then by rank: ``row_id``, ``cluster_id`` int64; ``first_row_id`` int64,
        the first of its cluster that may stay, -1 where none may; ``rank`` int64, from 0; ``role``
        uint8.
    """
    columns = {"cluster": cluster_ids, "role": roles, "row": row_ids}
    if keys is not None:
        columns["key"] = keys
    by = ["cluster", "role", *(["key"] if keys is not None else []), "row"]
    order = pc.sort_indices(pa.table(columns), [(name, "ascending") for name in by]).to_numpy()
    cluster_ids, row_ids, roles = cluster_ids[order], row_ids[order], roles[order]
    starts = np.flatnonzero(np.diff(cluster_ids, prepend=-1))
    sizes = np.diff(starts, append=len(row_ids))
    firsts = np.where(roles[starts] <= ORDINARY, row_ids[starts], -1)
    return pd.DataFrame(
        {
            "row_id": row_ids,
            "cluster_id": cluster_ids,
            "first_row_id": np.repeat(firsts, sizes),
            "rank": np.arange(len(row_ids)) - np.repeat(starts, sizes),
            "role": roles,
        }
    )


def centre_cosines(
    cluster_ids: np.ndarray,
    row_ids: np.ndarray,
    stored: PartRows,
    read_bytes: int = COMPARED_BYTES,
) -> np.ndarray:
    """Return the cosine of each row to the sum of its cluster's rows at length 1.

    The higher it is, the higher is the mean of the row's cosines to the others of its cluster: n of
    them have the mean (L c - 1) / (n - 1), where L is the length of the sum and c this cosine.

    Parameters
    ----------
    cluster_ids, row_ids : int64 arrays, shape (rows,)
        Whole clusters, sorted by cluster and ``row_id``.
    stored : PartRows
    read_bytes : int
        Of rows at a time: a larger cluster is read twice.

    Returns
    -------
    float32 array, shape (rows,)
        The same whatever stands beside a cluster.
    """
    from dask_dedup.vectors import cosines  # torch, which the driver does without

    found = np.empty(len(row_ids), np.float32)
    starts = np.append(np.flatnonzero(np.diff(cluster_ids, prepend=-1)), len(row_ids))
    step = max(2, read_bytes // (stored.dim * stored.dtype.itemsize))
    first = 0
    while first + 1 < len(starts):
        stop = int(np.searchsorted(starts, starts[first] + step, "right")) - 1
        stop = max(stop, first + 1)
        begin, end = int(starts[first]), int(starts[stop])
        place = np.repeat(np.arange(stop - first), np.diff(starts[first : stop + 1]))
        sums = np.zeros((stop - first, stored.dim))
        blocks = [(at, min(at + step, end)) for at in range(begin, end, step)]
        rows = None
        for low, high in blocks:
            rows = _gather(stored, row_ids[low:high])
            _add_units(rows, place[low - begin : high - begin], sums)
        sums[~sums.any(axis=1), 0] = 1  # rows that cancel out: any direction does
        for low, high in blocks:
            if rows is None or len(blocks) > 1:
                rows = _gather(stored, row_ids[low:high])
            own = np.arange(high - low)
            found[low:high] = cosines.cosine_pairs(
                rows, sums, own, place[low - begin : high - begin]
            )
        first = stop
    return found


def _gather(stored: PartRows, row_ids: np.ndarray) -> np.ndarray:
    ids, back = np.unique(row_ids, return_inverse=True)
    from dask_dedup.vectors.cosines import exact_rows

    return exact_rows(stored.gather(ids))[back]


@numba.njit(cache=True, nogil=True)
def _add_units(rows: np.ndarray, place: np.ndarray, sums: np.ndarray) -> None:
    """Add each row, at length 1, to the sum of its place: one after the other, in float64."""
    for i in range(len(rows)):
        square = 0.0
        for k in range(rows.shape[1]):
            square += np.float64(rows[i, k]) * np.float64(rows[i, k])
        length = np.sqrt(square)
        for k in range(rows.shape[1]):
            sums[place[i], k] += rows[i, k] / length
