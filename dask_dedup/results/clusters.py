"""Labels joined to captions and URLs: every row once, without a shuffle."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.metadata import MetadataColumns, empty_table, read_metadata, to_pandas
from dask_dedup.data.part_files import PartFiles, read_invalid
from dask_dedup.data.part_rows import PartRows
from dask_dedup.data.parts import Part, gather_rows
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.schema import CLUSTERS
from dask_dedup.storage.files import write_frame
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = [
    "clusters_of_part",
    "count_linked_through_others",
    "join_clusters",
    "write_clusters",
]

_READ_BYTES = 8 << 20  # of rows compared with their representatives at a time
_OWN_COLUMNS = CLUSTERS.columns.get_loc("url")  # they stand before the user's


def join_clusters(dataset: Dataset, labels: dd.DataFrame, layout: PartFiles) -> dd.DataFrame:
    """Join the clusters to the metadata of every row.

    Parameters
    ----------
    dataset : Dataset
    labels : dask DataFrame
        LABELS from `dask_dedup.label_components`, cut at ``dataset.divisions``.
    layout : PartFiles
        Tells which rows are invalid.

    Returns
    -------
    dask DataFrame
        CLUSTERS and the user's columns: lazy, one partition per filled part, in ``row_id`` order.
    """
    import dask.dataframe as dd
    from dask.delayed import delayed

    none = np.empty(0, np.int64)
    empty = empty_table(dataset.columns)
    return dd.from_delayed(
        [
            delayed(_clusters_frame)(part, dataset.columns, own, layout)
            for part, own in zip(dataset.filled_parts, labels.to_delayed(), strict=True)
        ],
        meta=_to_frame(
            _assemble(empty, none, none, none, np.empty(0, np.bool_), np.empty(0, np.float32))
        ),
        prefix="join-clusters",
        verify_meta=False,
    )


def clusters_of_part(
    part: Part,
    columns: MetadataColumns,
    labels: pd.DataFrame,
    invalid: np.ndarray,
    stored: PartRows,
) -> pa.Table:
    """Return the CLUSTERS of one part, the user's columns included.

    Parameters
    ----------
    part : Part
    columns : MetadataColumns
    labels : DataFrame
        LABELS; rows of other parts are passed over.
    invalid : int64 array
        ``row_id`` of the part's rows without a usable embedding: each a cluster of its own, kept.
    stored : PartRows
        Of the data set, in which the representatives are.
    """
    row_ids = np.arange(part.row_start, part.row_stop)
    cluster_ids, sizes = row_ids.copy(), np.ones(part.rows, np.int64)
    first, last = labels.index.searchsorted([part.row_start, part.row_stop])
    own = labels.iloc[first:last]
    position = own.index.to_numpy() - part.row_start
    cluster_ids[position] = own["cluster_id"]
    sizes[position] = own["cluster_size"]
    is_valid = np.ones(part.rows, np.bool_)
    is_valid[invalid - part.row_start] = False
    similarity = _to_representatives(part, stored, cluster_ids)
    metadata = read_metadata(part, columns)
    return _assemble(metadata, row_ids, cluster_ids, sizes, is_valid, similarity)


def write_clusters(
    part: Part,
    columns: MetadataColumns,
    labels: pd.DataFrame,
    invalid: np.ndarray,
    stored: PartRows,
    path: str | AnyPath,
    threshold: float,
) -> dict[str, Any]:
    """Write `clusters_of_part` to one file.

    Returns
    -------
    dict
        ``rows``, ``invalid_rows``, and ``sizes``: how many clusters of each size (as text, for
        JSON) have their smallest row in this part, invalid rows left out; and
        ``linked_through_others``, from `count_linked_through_others`.
    """
    table = clusters_of_part(part, columns, labels, invalid, stored)
    write_frame(as_path(path), table, table.schema.metadata, durable=True)
    similarity = table["similarity_to_representative"].to_numpy()
    counted = np.asarray(table["is_representative"]) & np.asarray(table["is_valid"])
    sizes = Counter(np.asarray(table["cluster_size"])[counted].tolist())
    return {
        "rows": table.num_rows,
        "invalid_rows": len(invalid),
        "sizes": {str(size): count for size, count in sorted(sizes.items())},
        "linked_through_others": count_linked_through_others(similarity, threshold),
    }


def count_linked_through_others(similarity: np.ndarray, threshold: float) -> dict[str, Any]:
    """Count the rows that are in a cluster only through others, and are unlike the row that stays.

    Parameters
    ----------
    similarity : float32 array, shape (rows,)
        Of each row to the representative of its cluster: 1 of a representative, NaN where invalid.
    threshold : float
        Cosine from which on a pair was linked; compared as float32, as the links were.

    Returns
    -------
    dict
        ``rows`` below the threshold; those of them that are ``below_0.8``, too; ``lowest``, the
        least similarity (None without such rows). JSON.
    """
    below = similarity[similarity < np.float32(threshold)]
    return {
        "rows": len(below),
        "below_0.8": int((below < np.float32(0.8)).sum()),
        "lowest": float(below.min()) if len(below) else None,
    }


def _clusters_frame(
    part: Part, columns: MetadataColumns, labels: pd.DataFrame, layout: PartFiles
) -> pd.DataFrame:
    starts = [span.row_start for span in layout.spans]
    span = layout.spans[bisect_right(starts, part.row_start) - 1]
    ids = read_invalid(layout, span)["row_id"].to_numpy()
    invalid = ids[(ids >= part.row_start) & (ids < part.row_stop)]
    return _to_frame(clusters_of_part(part, columns, labels, invalid, layout.part_list.rows))


def _to_representatives(part: Part, stored: PartRows, cluster_ids: np.ndarray) -> np.ndarray:
    """Return the cosine of each row and the representative of its cluster: float32.

    Both are read again, singly: as many rows as there are duplicates, and their representatives.
    """
    row_ids = np.arange(part.row_start, part.row_stop)
    similarity = np.ones(part.rows, np.float32)
    members = np.flatnonzero(cluster_ids != row_ids)
    row_bytes = part.embeddings.dim * np.dtype(part.embeddings.dtype).itemsize
    step = max(1, _READ_BYTES // row_bytes)
    for start in range(0, len(members), step):
        own = members[start : start + step]
        wanted, back = np.unique(cluster_ids[own], return_inverse=True)
        rows = exact_rows(gather_rows(part.embeddings, own))
        representatives = exact_rows(stored.gather(wanted))
        similarity[own] = cosine_pairs(rows, representatives, np.arange(len(own)), back)
    return similarity


def _to_frame(table: pa.Table) -> pd.DataFrame:
    """Turn CLUSTERS into pandas: our columns with numpy's types, the user's with Arrow's."""
    names = table.column_names
    ours, theirs = table.select(names[:_OWN_COLUMNS]), table.select(names[_OWN_COLUMNS:])
    return pd.concat([ours.to_pandas(ignore_metadata=True), to_pandas(theirs)], axis=1)


def _assemble(
    metadata: pa.Table,
    row_ids: np.ndarray,
    cluster_ids: np.ndarray,
    sizes: np.ndarray,
    is_valid: np.ndarray,
    similarity: np.ndarray,
) -> pa.Table:
    """Put our columns before the user's, whose notes stay."""
    ours = {
        "row_id": pa.array(row_ids),
        "cluster_id": pa.array(cluster_ids),
        "cluster_size": pa.array(sizes),
        "is_representative": pa.array(row_ids == cluster_ids),
        "is_valid": pa.array(is_valid),
        "similarity_to_representative": pa.array(similarity, mask=~is_valid),
    }
    return pa.table(
        [*ours.values(), *metadata.columns],
        schema=pa.schema(
            [*(pa.field(name, array.type) for name, array in ours.items()), *metadata.schema],
            metadata.schema.metadata,
        ),
    )
