"""What the workers do in each stage of a run: one function per kind of task.

Each writes its files and returns what `dask_dedup.storage.stage.Stage` records of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.cells.entries import merge_entries
from dask_dedup.cells.join import join_group
from dask_dedup.cells.join_groups import CellGroup
from dask_dedup.cells.layout import layout_span
from dask_dedup.cells.layout_files import CellLayout, EntryFile
from dask_dedup.data.finder_files import FinderFiles, read_invalid
from dask_dedup.data.metadata import MetadataColumns, empty_table, read_metadata, take_rows
from dask_dedup.data.parts import Part, read_rows
from dask_dedup.data.spans import Span
from dask_dedup.graph.forest import forest_of_edges, spanning_edges
from dask_dedup.graph.labels import DenseLabels, SparseLabels, label_densely, label_sparsely
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.audit import AuditCollector, AuditQueries, sample_queries, score
from dask_dedup.pipeline.audit_pairs import read_pairs
from dask_dedup.pipeline.similarities import MOST_ROWS, measure_similarities
from dask_dedup.pipeline.span_members import (
    SpanSources,
    labels_path,
    read_members,
    unwanted_alone,
)
from dask_dedup.report.summary import largest_clusters, sum_linked_through_others
from dask_dedup.results.clusters import PartRules, write_clusters
from dask_dedup.results.members import no_members
from dask_dedup.results.merge_columns import MergeColumn
from dask_dedup.results.sorted_files import read_sorted
from dask_dedup.storage.files import read_frame, write_aside, write_frame
from dask_dedup.vectors.cosines import exact_rows
from dask_dedup.vectors.pca import load_pca
from dask_dedup.vectors.unit import INVALID_REASONS

__all__ = [
    "draw_queries",
    "join_and_write",
    "label_and_score",
    "layout_and_audit",
    "merge_and_count",
    "pack_span",
    "read_forest",
    "write_forest",
    "write_span",
]

_PACK_BYTES = 32 << 20  # of rows in memory at a time


def pack_span(span: Span, path: AnyPath) -> dict[str, int]:
    """Write the embeddings of a span one after another: what `dask_dedup.pipeline.packing` says.

    Each part keeps its dtype, in native byte order.
    """
    with write_aside(path) as temporary, open(temporary, "wb") as out:
        for file in (part.embeddings for part in span.parts):
            step = max(1, _PACK_BYTES // (file.dim * np.dtype(file.dtype).itemsize))
            for start in range(0, file.rows, step):
                out.write(read_rows(file, start, min(start + step, file.rows)).data)
    return {"rows": span.rows}


def draw_queries(layout: CellLayout, size: int, seed: int) -> None:
    """Draw the rows that the audit compares with all others, and write them."""
    sample_queries(layout.part_list.rows, size, seed).write(layout.queries_path)


def layout_and_audit(
    layout: CellLayout,
    span: Span,
    threads: int,
    device: str,
    threshold: float | None,
    seed: int,
) -> dict[str, Any]:
    """Write the layout of one span; with a threshold, collect the audit's true pairs as well."""
    if threshold is None:
        return {**layout_span(layout, span, threads, device=device)._asdict(), "audit_seconds": 0.0}
    queries = AuditQueries.read(layout.queries_path)
    collector = AuditCollector(queries, load_pca(layout.pca_path), threshold, seed)
    counts = layout_span(layout, span, threads, collector.add, device)
    collector.write(layout.path("audit", span))
    return {**counts._asdict(), "audit_seconds": collector.seconds}


def merge_and_count(
    layout: CellLayout, files: list[EntryFile], merged: EntryFile
) -> dict[str, int]:
    """Merge the entries of neighbouring files."""
    merge_entries(layout, files, merged)
    return {"rows": merged.row_stop - merged.row_start, "entries": merged.entries}


def join_and_write(
    layout: CellLayout,
    group: CellGroup,
    threshold: float,
    threads: int,
    device: str,
    path: AnyPath,
) -> dict[str, int]:
    """Find the edges of one group of cells and write the forest that they contract to."""
    result = join_group(layout, group, threshold, threads, spanning_edges, device)
    write_frame(path, result.edges)
    return {
        "entries": result.entry_count,
        "candidates": result.candidates,
        "pairs": result.pairs,
        "edges": len(result.edges),
    }


def read_forest(path: AnyPath) -> pd.DataFrame:
    """Read FOREST, or EDGES, from a file."""
    return read_frame(path)


def write_forest(
    forest: pd.DataFrame, path: AnyPath, notes: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Write what a tree of merges has come to; alone in it, a file may have been no forest."""
    forest = forest_of_edges(forest)
    write_frame(path, forest, notes, durable=True)
    return {"edges": len(forest)}


def label_and_score(
    layout: FinderFiles,
    forest_path: AnyPath,
    rows: int,
    merged: str,
    lowest: float,
    threshold: float,
    seed: int,
    queries: int,
    folder: AnyPath,
) -> dict[str, Any]:
    """Label the components, write the labels of each span, score the audit.

    ``lowest`` is the similarity from which on edges are followed, ``threshold`` the cosine of the
    audit's true pairs: with quantized distances, two things. ``merged`` is what
    `dask_dedup.graph.choice.choose_merge` chose: the labels are in memory in the same way.
    """
    labels: DenseLabels | SparseLabels
    if merged == "stream":
        labels = label_densely(forest_path, rows, lowest)
    else:
        labels = label_sparsely(forest_path, lowest)
    for span in layout.spans:
        own = labels.between(span.row_start, span.row_stop)
        write_frame(labels_path(folder, span), own.reset_index())
    row_ids = layout.query_ids() if queries else np.empty(0, np.int64)
    pairs = read_pairs(layout.audit_paths() if queries else [], seed)
    # Where it will be published, for other thresholds later.
    audit_folder = folder / "audit"
    write_frame(audit_folder / "queries.parquet", pd.DataFrame({"row_id": row_ids}), durable=True)
    write_frame(audit_folder / "pairs.parquet", pairs, durable=True)
    audit = _score_audit(row_ids, pairs, labels, threshold, seed) if queries else None
    looked_at = row_ids[:: max(1, len(row_ids) // MOST_ROWS)]
    similarities = None
    if len(looked_at):
        similarities = measure_similarities(exact_rows(layout.part_list.rows.gather(looked_at)))
    return {"edges": labels.edges, "audit": audit, "similarities": similarities}


def write_span(
    layout: FinderFiles,
    span: Span,
    columns: MetadataColumns,
    sources: SpanSources,
    merge: Sequence[MergeColumn],
    clusters: AnyPath,
    invalid: AnyPath,
) -> dict[str, Any]:
    """Write the clusters of a span's parts and their invalid rows, a file each.

    Parameters
    ----------
    sources : SpanSources
        What becomes of the rows in clusters.
    merge : sequence of MergeColumn
        Columns that are merged.
    clusters, invalid : paths
        Folders that are written into.

    Returns
    -------
    dict
        As `dask_dedup.results.clusters.write_clusters` returns it of one part, of all together.
    """
    records: list[dict[str, Any]] = []
    left_out = _no_invalid()
    members = no_members()
    if span.rows:
        left_out = read_invalid(layout, span)
        if "invalid_reason" in left_out:
            left_out["reason"] = [
                INVALID_REASONS.index(word) for word in left_out["invalid_reason"]
            ]
        members = read_members(layout, span, sources)
    removed = unwanted_alone(members, span, sources.decided)
    carried = None
    if sources.carried and span.rows:
        carried = read_sorted(sources.carried, span.row_start, span.row_stop)
    ids, reason = left_out["row_id"].to_numpy(), left_out["reason"].to_numpy()
    for part in span.parts:
        start, stop = np.searchsorted(ids, [part.row_start, part.row_stop])
        name = f"part-{part.index:05d}.parquet"
        _write_invalid(part, columns, ids[start:stop], reason[start:stop], invalid / name)
        own = ids[start:stop]
        rules = PartRules(
            _between(removed, part), merge, _owned(carried, part), sources.dropped is not None
        )
        records.append(
            write_clusters(part, columns, members, own, clusters / name, sources.threshold, rules)
        )
    sizes = Counter[str]()
    for record in records:
        sizes.update(record["sizes"])
    return {
        "rows": sum(record["rows"] for record in records),
        "invalid_rows": len(ids),
        **{
            name: sum(record[name] for record in records)
            for name in ("kept", "dropped_by_cap", "dropped_by_decision")
        },
        "sizes": dict(sizes),
        "largest": largest_clusters(one for record in records for one in record["largest"]),
        "linked_through_others": sum_linked_through_others(
            [record["linked_through_others"] for record in records]
        ),
    }


def _between(row_ids: np.ndarray, part: Part) -> np.ndarray:
    return row_ids[(row_ids >= part.row_start) & (row_ids < part.row_stop)]


def _owned(carried: pa.Table | None, part: Part) -> pa.Table | None:
    if carried is None:
        return None
    owner = carried["owner"].to_numpy()
    own = np.flatnonzero((owner >= part.row_start) & (owner < part.row_stop))
    return carried.take(pa.array(own))


def _no_invalid() -> pd.DataFrame:
    return pd.DataFrame({"row_id": [], "reason": []}, dtype=np.int64)


def _write_invalid(
    part: Part, columns: MetadataColumns, ids: np.ndarray, reason: np.ndarray, path: AnyPath
) -> None:
    """Write the rows without a usable embedding, and why: every part, even if there are none."""
    if len(ids):
        metadata = take_rows(read_metadata(part, columns), pa.array(ids - part.row_start))
    else:
        metadata = empty_table(columns)
    names = pa.array([INVALID_REASONS[code] for code in reason], pa.string())
    ours = [pa.field("row_id", pa.int64()), pa.field("invalid_reason", pa.string())]
    table = pa.Table.from_arrays(
        [pa.array(ids), names, *metadata.columns],
        schema=pa.schema([*ours, *metadata.schema], metadata.schema.metadata),
    )
    write_frame(path, table, table.schema.metadata, durable=True)


def _score_audit(
    row_ids: np.ndarray,
    pairs: pd.DataFrame,
    labels: DenseLabels | SparseLabels,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    began = time.perf_counter()
    true = pairs[pairs["similarity"] >= np.float32(threshold)]
    result = score(row_ids, true, labels.of, seed).to_dict()
    return {**result, "seconds": time.perf_counter() - began}
