"""What the workers do where some copies are wanted rather than others: ``[keep]``.

1. match: the rows of each span that decisions are about, where these name them by a column.
2. value: of each span's rows in clusters, the roles and the sort keys, put into buckets by cluster.
3. rank: the clusters of a bucket in order.
4. place: of each span's rows, those that may be settled otherwise, into buckets by cluster.
5. settle: who stays in the clusters of a bucket.
6. carry: the values of each span's dropped rows, sorted by the row that stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.data.finder_files import FinderFiles
from dask_dedup.data.metadata import MetadataColumns, read_metadata, take_rows
from dask_dedup.data.spans import Span
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.span_members import SpanSources, labels_path, read_members
from dask_dedup.results.bucket_files import BucketOut, bucket_of, read_bucket
from dask_dedup.results.decisions import match_keys
from dask_dedup.results.expressions import evaluate
from dask_dedup.results.keep_rules import MEDOID, KeepRules
from dask_dedup.results.merge_columns import plain_values
from dask_dedup.results.order import centre_cosines, rank_members
from dask_dedup.results.roles import ORDINARY, PROTECTED
from dask_dedup.results.settle import rows_to_settle, settle
from dask_dedup.results.sorted_files import write_sorted
from dask_dedup.results.witness_files import write_dropped
from dask_dedup.storage.files import read_frame, write_aside, write_frame

__all__ = [
    "carry_span",
    "match_span",
    "place_span",
    "rank_bucket",
    "settle_bucket",
    "value_span",
]

_CARRIED_ROWS = 2048  # of a row group: each span reads some rows out of every file


def match_span(
    span: Span, columns: MetadataColumns, key: str, given: AnyPath, path: AnyPath
) -> dict[str, Any]:
    """Write the decided rows of a span: what `match_keys` returns.

    ``given``: file of the keys and the roles of their rows.
    """
    own, frame = columns.select([key]), read_frame(given)
    found = [match_keys(frame, pa.chunked_array([], pa.string()), 0)]
    found += [
        match_keys(frame, read_metadata(part, own)[key], part.row_start)
        for part in span.parts
        if part.rows
    ]
    write_frame(path, pd.concat(found, ignore_index=True))
    return {"rows": span.rows, "file": path.name}


def value_span(
    span: Span,
    columns: MetadataColumns,
    rules: KeepRules,
    labels_folder: AnyPath,
    decided: AnyPath | None,
    buckets: int,
    path: AnyPath,
) -> dict[str, Any]:
    """Write role and sort key of a span's rows in clusters; ``decided``: file of all decisions."""
    labels = read_frame(labels_path(labels_folder, span))
    row_ids, clusters = labels["row_id"].to_numpy(), labels["cluster_id"].to_numpy()
    roles = np.full(len(labels), ORDINARY, np.uint8)
    keys: list[pa.ChunkedArray] = []
    if rules.expressions:
        own = columns.select(rules.columns)
        for part in span.parts:
            start, stop = np.searchsorted(row_ids, [part.row_start, part.row_stop])
            if start == stop:
                continue
            ids = row_ids[start:stop]
            table = pa.table({"row_id": ids})
            if rules.columns:  # a table without columns would have no rows
                taken = take_rows(read_metadata(part, own), pa.array(ids - part.row_start))
                for name in rules.columns:
                    table = table.append_column(name, taken[name])
            if rules.protect is not None:
                is_protected = evaluate(rules.protect, table).to_numpy()
                roles[start:stop][is_protected] = PROTECTED
            if rules.order is not None:
                keys.append(evaluate(rules.order, table))
    protected = int(np.count_nonzero(roles == PROTECTED))
    if decided is not None:
        all_decided = read_frame(decided)
        place = all_decided["row_id"].searchsorted(row_ids)
        there = np.flatnonzero(place < len(all_decided))
        there = there[all_decided["row_id"].to_numpy()[place[there]] == row_ids[there]]
        roles[there] = all_decided["role"].to_numpy()[place[there]]
    arrays = {"row_id": pa.array(row_ids), "cluster_id": pa.array(clusters), "role": roles}
    if keys:
        arrays["key"] = pa.chunked_array([chunk for one in keys for chunk in one.chunks])
    if len(labels):
        table = pa.table(arrays)
        with write_aside(path) as temporary, BucketOut(temporary, table.schema) as out:
            out.write(table, bucket_of(arrays["cluster_id"], buckets))
    return {"protected": protected, "file": path.name if len(labels) else None}


def rank_bucket(
    layout: FinderFiles,
    paths: Sequence[AnyPath],
    bucket: int,
    rules: KeepRules,
    path: AnyPath,
) -> dict[str, Any]:
    """Rank the rows of the clusters of a bucket."""
    table = read_bucket([str(one) for one in paths], bucket)
    if not table.num_rows:
        return {"ranked": 0, "file": None}
    order = np.lexsort((table["row_id"].to_numpy(), table["cluster_id"].to_numpy()))
    table = table.take(pa.array(order))
    row_ids, clusters = table["row_id"].to_numpy(), table["cluster_id"].to_numpy()
    keys = table["key"] if "key" in table.column_names else None
    if rules.by == MEDOID:
        keys = pa.array(-centre_cosines(clusters, row_ids, layout.part_list.rows))
    ranked = rank_members(clusters, row_ids, table["role"].to_numpy(), keys)
    ranked = ranked.sort_values("row_id", ignore_index=True)
    write_sorted(pa.Table.from_pandas(ranked, preserve_index=False), path)
    return {"ranked": len(ranked), "file": path.name}


def place_span(
    layout: FinderFiles, span: Span, sources: SpanSources, buckets: int, path: AnyPath
) -> dict[str, Any]:
    """Put the rows of a span that may be settled otherwise into buckets by cluster."""
    rows = rows_to_settle(read_members(layout, span, sources))
    if len(rows):
        table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
        with write_aside(path) as temporary, BucketOut(temporary, table.schema) as out:
            out.write(table, bucket_of(table["cluster_id"].combine_chunks(), buckets))
    return {"placed": len(rows), "file": path.name if len(rows) else None}


def settle_bucket(
    layout: FinderFiles, paths: Sequence[AnyPath], bucket: int, most: int, path: AnyPath
) -> dict[str, Any]:
    """Settle who stays in the clusters of a bucket."""
    rows = read_bucket([str(one) for one in paths], bucket).to_pandas()
    settled = settle(rows, most, layout.part_list.rows)
    write_dropped(settled, path)
    return {"settled": len(settled), "file": path.name}


def carry_span(
    layout: FinderFiles,
    span: Span,
    columns: MetadataColumns,
    rules: KeepRules,
    sources: SpanSources,
    path: AnyPath,
) -> dict[str, Any]:
    """Write the values of a span's dropped rows, sorted by their witnesses."""
    members = read_members(layout, span, sources)
    row_ids, witness = members.index.to_numpy(), members["witness_row_id"].to_numpy()
    gone = np.flatnonzero((witness != row_ids) & (witness >= 0))
    row_ids, witness = row_ids[gone], witness[gone]
    own = columns.select([one.name for one in rules.merge])
    tables = []
    for part in span.parts:
        start, stop = np.searchsorted(row_ids, [part.row_start, part.row_stop])
        if start == stop:
            continue
        ids = row_ids[start:stop]
        values = take_rows(read_metadata(part, own), pa.array(ids - part.row_start))
        values = plain_values(values, rules.merge)
        keys = {"owner": pa.array(witness[start:stop]), "row_id": pa.array(ids)}
        tables.append(
            pa.Table.from_arrays(
                [*keys.values(), *values.columns],
                # names of ours first; a column of the user may have the same
                names=[*keys, *(f"value{i}" for i in range(len(rules.merge)))],
            )
        )
    if tables:
        table = pa.concat_tables(tables)
        order = np.lexsort((table["row_id"].to_numpy(), table["owner"].to_numpy()))
        write_sorted(table.take(pa.array(order)), path, _CARRIED_ROWS)
    return {"carried": len(row_ids), "file": path.name if tables else None}
