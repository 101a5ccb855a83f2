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
from dask_dedup.data.part_files import PartFiles
from dask_dedup.data.part_list import PartList
from dask_dedup.data.part_rows import PartRows
from dask_dedup.data.parts import Part, gather_rows
from dask_dedup.errors import InputError
from dask_dedup.graph.origin import origin_of
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.invalid_rows import find_layout, invalid_rows
from dask_dedup.results.sizes import COMPARED_BYTES
from dask_dedup.schema import CLUSTERS
from dask_dedup.storage.files import write_frame
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows

if TYPE_CHECKING:
    import dask.dataframe as dd
    from dask.delayed import Delayed

__all__ = [
    "clusters_of_part",
    "count_linked_through_others",
    "join_clusters",
    "write_clusters",
]

_OWN_COLUMNS = CLUSTERS.columns.get_loc("url")  # they stand before the user's


def join_clusters(dataset: Dataset, labels: dd.DataFrame) -> dd.DataFrame:
    """Join the clusters to the metadata of every row.

    Parameters
    ----------
    dataset : Dataset
        The one that was searched.
    labels : dask DataFrame
        LABELS from `dask_dedup.label_components` or `dask_dedup.write_labels`, or your own: sorted
        by ``row_id``, in one partition, or in several of known divisions.

    Returns
    -------
    dask DataFrame
        CLUSTERS and the user's columns, every row once, in ``row_id`` order: lazy, one partition
        per part that has rows. Rows without a usable embedding are a cluster of their own each,
        with ``is_valid`` false.

    Raises
    ------
    InputError
        The labels are of a data set with another number of rows.
    ValueError
        The labels have several partitions of unknown divisions.

    Notes
    -----
    Which rows are invalid is read from the layout that the labels come from. Where they do not say
    which, or it is gone, each part's embeddings are read once more.

    A task holds the metadata of its part, the labels of its rows (24 bytes each), and 0.2 GB of
    vectors at most. Of these it reads the rows that are duplicates, and their representatives,
    singly.
    """
    import dask.dataframe as dd
    from dask.delayed import delayed

    origin = origin_of(labels._meta)
    if origin is not None and origin.rows != dataset.rows:
        raise InputError(
            f"{dataset.path}: has {dataset.rows:,} rows, and the labels are of a data set with "
            f"{origin.rows:,}. Join them to the one that was searched."
        )
    layout = find_layout(dataset, origin)
    pieces = _pieces_of_parts(dataset, labels)
    none = np.empty(0, np.int64)
    empty = empty_table(dataset.columns)
    stored = delayed(PartList(dataset.filled_parts), traverse=False)  # one, for all tasks
    return dd.from_delayed(
        [
            delayed(_clusters_frame)(part, dataset.columns, own, layout, stored)
            for part, own in zip(dataset.filled_parts, pieces, strict=True)
        ],
        meta=_to_frame(
            _assemble(empty, none, none, none, np.empty(0, np.bool_), np.empty(0, np.float32))
        ),
        prefix="join-clusters",
        verify_meta=False,
    )


def _pieces_of_parts(dataset: Dataset, labels: dd.DataFrame) -> list[list[Delayed]]:
    """Return which partitions of the labels reach into each filled part."""
    delayed_labels = labels.to_delayed()
    if len(delayed_labels) == 1:
        return [[*delayed_labels] for _ in dataset.filled_parts]
    if not labels.known_divisions:
        raise ValueError(
            f"the labels: expected one partition, or known divisions, got {labels.npartitions} "
            f"partitions of unknown divisions. Sort them: labels.reset_index().set_index('row_id')."
        )
    starts = labels.divisions[:-1]
    pieces = []
    for part in dataset.filled_parts:
        first = max(bisect_right(starts, part.row_start) - 1, 0)
        last = bisect_right(starts, part.row_stop - 1)
        pieces.append([*delayed_labels[first : max(last, first + 1)]])
    return pieces


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
    part: Part,
    columns: MetadataColumns,
    pieces: list[pd.DataFrame],
    layout: PartFiles | None,
    stored: PartList,
) -> pd.DataFrame:
    labels = pieces[0] if len(pieces) == 1 else pd.concat(pieces)
    return _to_frame(
        clusters_of_part(part, columns, labels, invalid_rows(part, layout), stored.rows)
    )


def _to_representatives(
    part: Part, stored: PartRows, cluster_ids: np.ndarray, read_bytes: int = COMPARED_BYTES
) -> np.ndarray:
    """Return the cosine of each row and the representative of its cluster: float32.

    Both are read again, singly: as many rows as there are duplicates, and their representatives.
    """
    row_ids = np.arange(part.row_start, part.row_stop)
    similarity = np.ones(part.rows, np.float32)
    members = np.flatnonzero(cluster_ids != row_ids)
    row_bytes = part.embeddings.dim * np.dtype(part.embeddings.dtype).itemsize
    step = max(1, read_bytes // row_bytes)
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
