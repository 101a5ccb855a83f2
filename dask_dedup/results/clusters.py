"""Labels joined to captions and URLs: every row once, without a shuffle."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.finder_files import FinderFiles
from dask_dedup.data.metadata import MetadataColumns, empty_table, read_metadata, to_pandas
from dask_dedup.data.part_list import PartList
from dask_dedup.data.parts import Part
from dask_dedup.errors import InputError
from dask_dedup.graph.forest_range import range_of
from dask_dedup.graph.origin import origin_of
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.report.summary import LARGEST, largest_clusters
from dask_dedup.results.invalid_rows import find_layout, invalid_rows
from dask_dedup.results.members import (
    compare_members,
    find_dropped,
    no_members,
    rows_below,
    with_witnesses,
)
from dask_dedup.results.merge_columns import MergeColumn, merge_part
from dask_dedup.results.roles import ORDINARY, UNWANTED
from dask_dedup.schema import CLUSTERS
from dask_dedup.storage.files import write_frame

if TYPE_CHECKING:
    import dask.dataframe as dd
    from dask.delayed import Delayed

__all__ = [
    "PartRules",
    "clusters_of_part",
    "count_linked_through_others",
    "join_clusters",
    "write_clusters",
]


_OWN_COLUMNS = CLUSTERS.columns.get_loc("url")  # they stand before the user's


def join_clusters(
    dataset: Dataset,
    labels: dd.DataFrame,
    forest: dd.DataFrame | None = None,
    threshold: float | None = None,
) -> dd.DataFrame:
    """Join the clusters to the metadata of every row.

    Parameters
    ----------
    dataset : Dataset
        The one that was searched.
    labels : dask DataFrame
        LABELS from `dask_dedup.label_components` or `dask_dedup.write_labels`, or your own: sorted
        by ``row_id``, in one partition, or in several of known divisions.
    forest : dask DataFrame, optional
        FOREST that the labels were made from. With it, each row that is dropped has a witness, as
        with ``--linkage star`` of a run; without, one row of each cluster stays, as with
        ``--linkage components``.
    threshold : float, optional
        With a forest: the cosine that the labels were made at.

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
    SettingsError
        The forest does not answer the threshold.
    ValueError
        The labels have several partitions of unknown divisions, or one of forest and threshold is
        missing.

    Notes
    -----
    Which rows are invalid is read from the layout that the labels come from. Where they do not say
    which, or it is gone, each part's embeddings are read once more.

    A task holds the metadata of its part, the labels of its rows (24 bytes each), and 0.2 GB of
    vectors at most. Of these it reads the rows that are duplicates, and their representatives,
    singly. Witnesses are looked for in one task, which holds the forest and some 100 bytes for each
    row that is unlike the representative of its cluster; a run has several.
    """
    import dask.dataframe as dd
    from dask.delayed import delayed

    origin = origin_of(labels._meta)
    if origin is not None and origin.rows != dataset.rows:
        raise InputError(
            f"{dataset.path}: has {dataset.rows:,} rows, and the labels are of a data set with "
            f"{origin.rows:,}. Join them to the one that was searched."
        )
    if (forest is None) != (threshold is None):
        raise ValueError("join_clusters: expected forest and threshold together, got one of them.")
    layout = find_layout(dataset, origin)
    pieces = _pieces_of_parts(dataset, labels)
    stored = delayed(PartList(dataset.filled_parts), traverse=False)  # one, for all tasks
    members = [
        delayed(_compare_pieces)(part, own, stored)
        for part, own in zip(dataset.filled_parts, pieces, strict=True)
    ]
    dropped = None
    if forest is not None and threshold is not None:
        if (known := range_of(forest._meta)) is not None:
            known.check(threshold, "the forest")
        below = [delayed(rows_below)(own, threshold) for own in members]
        dropped = delayed(find_dropped)(below, forest.to_delayed(), threshold, stored)
    return dd.from_delayed(
        [
            delayed(_clusters_frame)(part, dataset.columns, own, layout, dropped, threshold)
            for part, own in zip(dataset.filled_parts, members, strict=True)
        ],
        meta=_to_frame(
            _assemble(empty_table(dataset.columns), no_members(), np.empty(0, np.bool_))
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


class PartRules(NamedTuple):
    """What ``[keep]`` asks of one part.

    Attributes
    ----------
    removed : int64 array
        ``row_id`` of rows that are in no cluster and are dropped by a decision.
    merge : sequence of MergeColumn
        The columns that are merged.
    carried : pyarrow.Table, optional
        Values of rows that are dropped for rows of this part: see `merge_part`.
    is_star : bool
        Whether each dropped row is to have a witness.
    """

    removed: np.ndarray = np.empty(0, np.int64)
    merge: Sequence[MergeColumn] = ()
    carried: pa.Table | None = None
    is_star: bool = True


def clusters_of_part(
    part: Part,
    columns: MetadataColumns,
    members: pd.DataFrame,
    invalid: np.ndarray,
    rules: PartRules | None = None,
) -> pa.Table:
    """Return the CLUSTERS of one part, the user's columns included.

    Parameters
    ----------
    part : Part
    columns : MetadataColumns
    members : DataFrame
        From `dask_dedup.results.members.with_witnesses`; rows of other parts are passed over.
    invalid : int64 array
        ``row_id`` of the part's rows without a usable embedding: each a cluster of its own, kept.
    rules : PartRules, optional
    """
    rules = rules or PartRules()
    first, last = members.index.searchsorted([part.row_start, part.row_stop])
    is_valid = np.ones(part.rows, np.bool_)
    is_valid[invalid - part.row_start] = False
    metadata = read_metadata(part, columns)
    table = _assemble(metadata, members.iloc[first:last], is_valid, part.row_start, rules.removed)
    if rules.merge:
        is_kept = np.asarray(table["is_kept"])
        merged = merge_part(metadata, is_kept, part.row_start, rules.carried, rules.merge)
        for field, column in zip(merged.schema, merged.columns, strict=True):
            table = table.append_column(field, column)
    return table


def write_clusters(
    part: Part,
    columns: MetadataColumns,
    members: pd.DataFrame,
    invalid: np.ndarray,
    path: str | AnyPath,
    threshold: float,
    rules: PartRules | None = None,
) -> dict[str, Any]:
    """Write `clusters_of_part` to one file.

    Returns
    -------
    dict
        ``rows``, ``invalid_rows``, ``kept``, and ``sizes``: how many clusters of each size (as
        text, for JSON) have their smallest row in this part, invalid rows left out; ``largest``,
        the largest of them, see `largest_clusters`; and ``linked_through_others``, from
        `count_linked_through_others`. ``dropped_by_cap`` and ``dropped_by_decision``: rows that no
        row that stays is near.
    """
    rules = rules or PartRules()
    table = clusters_of_part(part, columns, members, invalid, rules)
    write_frame(as_path(path), table, table.schema.metadata, durable=True)
    similarity = table["similarity_to_representative"].to_numpy()
    counted = np.asarray(table["is_representative"]) & np.asarray(table["is_valid"])
    size = np.asarray(table["cluster_size"])[counted]
    sizes = Counter(size.tolist())
    top = np.lexsort((np.arange(len(size)), -size))[:LARGEST]
    ids = np.asarray(table["cluster_id"])[counted]
    return {
        "rows": table.num_rows,
        "invalid_rows": len(invalid),
        "kept": int(np.count_nonzero(table["is_kept"])),
        "sizes": {str(size): count for size, count in sorted(sizes.items())},
        "largest": largest_clusters(
            {"cluster_id": int(ids[i]), "rows": int(size[i])} for i in top.tolist()
        ),
        "linked_through_others": count_linked_through_others(similarity, threshold),
        **_count_without_witness(part, members, threshold, rules),
    }


def _count_without_witness(
    part: Part, members: pd.DataFrame, threshold: float, rules: PartRules
) -> dict[str, int]:
    """Count the rows that go although no row that stays is near them, by what they go for."""
    by_cap, by_decision = 0, len(rules.removed)
    if "role" in members:
        first, last = members.index.searchsorted([part.row_start, part.row_stop])
        own = members.iloc[first:last]
        lowest = np.float32(threshold) if rules.is_star else np.float32(-1)
        similarity, witness = own["witness_similarity"], own["witness_row_id"]
        is_far = ((witness == -1) | (similarity < lowest)) & (witness != own.index)
        by_cap = int((is_far & (own["role"] == ORDINARY)).sum())
        by_decision += int((is_far & (own["role"] == UNWANTED)).sum())
    return {"dropped_by_cap": by_cap, "dropped_by_decision": by_decision}


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


def _compare_pieces(part: Part, pieces: list[pd.DataFrame], stored: PartList) -> pd.DataFrame:
    labels = pieces[0] if len(pieces) == 1 else pd.concat(pieces)
    first, last = labels.index.searchsorted([part.row_start, part.row_stop])
    return compare_members(labels.iloc[first:last], stored.rows)


def _clusters_frame(
    part: Part,
    columns: MetadataColumns,
    members: pd.DataFrame,
    layout: FinderFiles | None,
    dropped: pd.DataFrame | None,
    threshold: float | None,
) -> pd.DataFrame:
    members = with_witnesses(members, dropped, threshold)
    return _to_frame(clusters_of_part(part, columns, members, invalid_rows(part, layout)))


def _to_frame(table: pa.Table) -> pd.DataFrame:
    """Turn CLUSTERS into pandas: our columns with numpy's types, the user's with Arrow's."""
    names = table.column_names
    ours, theirs = table.select(names[:_OWN_COLUMNS]), table.select(names[_OWN_COLUMNS:])
    frame = ours.drop_columns("witness_row_id").to_pandas(ignore_metadata=True)
    witness = pd.array(table["witness_row_id"], dtype=CLUSTERS["witness_row_id"].dtype)
    frame.insert(_OWN_COLUMNS - 2, "witness_row_id", witness)  # numpy's integers know no null
    return pd.concat([frame, to_pandas(theirs)], axis=1)


def _assemble(
    metadata: pa.Table,
    members: pd.DataFrame,
    is_valid: np.ndarray,
    row_start: int = 0,
    removed: np.ndarray | None = None,
) -> pa.Table:
    """Put our columns before the user's, whose notes stay.

    ``members``: those of these rows; the others are alone, and of them the ``removed`` go.
    """
    row_ids = np.arange(row_start, row_start + len(is_valid))
    cluster_ids, sizes, witness = row_ids.copy(), np.ones_like(row_ids), row_ids.copy()
    similarity, to_witness = np.ones((2, len(row_ids)), np.float32)
    place = members.index.to_numpy() - row_start
    cluster_ids[place] = members["cluster_id"]
    sizes[place] = members["cluster_size"]
    similarity[place] = members["similarity"]
    witness[place] = members["witness_row_id"]
    to_witness[place] = members["witness_similarity"]
    if removed is not None:
        witness[removed - row_start] = -1
    is_kept = witness == row_ids
    has_none = is_kept | (witness < 0)
    ours = {
        "row_id": pa.array(row_ids),
        "cluster_id": pa.array(cluster_ids),
        "cluster_size": pa.array(sizes),
        "is_representative": pa.array(row_ids == cluster_ids),
        "is_valid": pa.array(is_valid),
        "similarity_to_representative": pa.array(similarity, mask=~is_valid),
        "is_kept": pa.array(is_kept),
        "witness_row_id": pa.array(witness, mask=has_none),
        "witness_similarity": pa.array(to_witness, mask=has_none),
    }
    return pa.table(
        [*ours.values(), *metadata.columns],
        schema=pa.schema(
            [*(pa.field(name, array.type) for name, array in ours.items()), *metadata.schema],
            metadata.schema.metadata,
        ),
    )
