"""What the workers do in each stage of a run: one function per kind of task.

Each writes its files and returns what `dask_dedup.io.store.Stage` records of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.clusters import write_clusters
from dask_dedup.compress.pca import load_pca
from dask_dedup.compress.vectors import INVALID_REASONS
from dask_dedup.evaluate.audit import AuditCollector, AuditQueries, judge, sample_queries
from dask_dedup.graph.forest import forest_of_edges, spanning_edges
from dask_dedup.graph.labels import DenseLabels, SparseLabels, label_densely, label_sparsely
from dask_dedup.index.cell_files import CellLayout
from dask_dedup.index.layout import layout_part
from dask_dedup.io.metadata import MetadataColumns, empty_table, read_metadata, take_rows
from dask_dedup.io.part_files import PartFiles, read_invalid
from dask_dedup.io.parts import Part, read_rows
from dask_dedup.io.store import read_frame, write_aside, write_frame
from dask_dedup.schema import LABELS
from dask_dedup.search.groups import CellGroup
from dask_dedup.search.join import join_group

__all__ = [
    "draw_queries",
    "join_and_write",
    "label_and_judge",
    "labels_path",
    "layout_and_audit",
    "read_forest",
    "unpack_part",
    "write_forest",
    "write_part",
]

_UNPACK_BYTES = 32 << 20  # of rows in memory at a time


def unpack_part(part: Part, path: Path) -> dict[str, int]:
    """Write the embeddings that one part has in a parquet column as a ``.npy`` file.

    Rows are read by position many times; of a column, each time costs the decoding of a chunk.
    """
    file = part.embeddings
    dtype = np.dtype(file.dtype)
    step = max(1, _UNPACK_BYTES // (file.dim * dtype.itemsize))
    with write_aside(path) as temporary, open(temporary, "wb") as out:
        descr = np.lib.format.dtype_to_descr(dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (file.rows, file.dim)}
        np.lib.format.write_array_header_1_0(out, header)
        data_offset = out.tell()
        for start in range(0, file.rows, step):
            out.write(read_rows(file, start, min(start + step, file.rows)).data)
    return {"rows": file.rows, "data_offset": data_offset}


def draw_queries(layout: CellLayout, size: int, seed: int) -> None:
    """Draw the rows that the audit compares with all others, and write them."""
    sample_queries(layout.parts, size, seed).write(layout.queries_path)


def layout_and_audit(
    layout: CellLayout,
    part: Part,
    threads: int,
    device: str,
    threshold: float | None,
    seed: int,
) -> dict[str, Any]:
    """Write the layout of one part; with a threshold, collect the audit's true pairs as well."""
    if threshold is None:
        return {**layout_part(layout, part, threads, device=device)._asdict(), "audit_seconds": 0.0}
    queries = AuditQueries.read(layout.queries_path)
    collector = AuditCollector(queries, load_pca(layout.pca_path), threshold, seed)
    counts = layout_part(layout, part, threads, collector.add, device)
    collector.write(layout.path("audit", part))
    return {**counts._asdict(), "audit_seconds": collector.seconds}


def join_and_write(
    layout: CellLayout,
    group: CellGroup,
    threshold: float,
    threads: int,
    device: str,
    path: Path,
) -> dict[str, int]:
    """Find the edges of one group of cells and write the forest that they contract to."""
    result = join_group(layout, group, threshold, threads, spanning_edges, device)
    write_frame(path, result.edges)
    return {
        "visits": result.visits,
        "candidates": result.candidates,
        "pairs": result.pairs,
        "edges": len(result.edges),
    }


def read_forest(path: Path) -> pd.DataFrame:
    """Read FOREST, or EDGES, from a file."""
    return read_frame(path)


def write_forest(
    forest: pd.DataFrame, path: Path, notes: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Write what a tree of merges has come to; alone in it, a file may have been no forest."""
    forest = forest_of_edges(forest)
    write_frame(path, forest, notes)
    return {"edges": len(forest)}


def label_and_judge(
    layout: PartFiles,
    forest_path: Path,
    rows: int,
    merged: str,
    lowest: float,
    threshold: float,
    seed: int,
    queries: int,
    folder: Path,
) -> dict[str, Any]:
    """Label the components, write the labels of each part, judge the audit.

    ``lowest`` is the similarity from which on edges are followed, ``threshold`` the cosine of the
    audit's true pairs: with quantized distances, two things. ``merged`` is what
    `dask_dedup.graph.stream.choose_merge` chose: the labels are in memory in the same way.
    """
    labels: DenseLabels | SparseLabels
    if merged == "stream":
        labels = label_densely(forest_path, rows, lowest)
    else:
        labels = label_sparsely(forest_path, lowest)
    for part in layout.parts:
        own = labels.between(part.row_start, part.row_stop)
        write_frame(labels_path(folder, part), own.reset_index())
    _keep_audit(layout, folder / "audit", queries)
    audit = _judge_audit(layout, labels, threshold, seed) if queries else None
    return {"edges": labels.edges, "audit": audit}


def labels_path(folder: Path, part: Part) -> Path:
    """Return the path of a part's LABELS."""
    return folder / f"labels-{part.index:05d}.parquet"


def write_part(
    layout: PartFiles,
    part: Part,
    columns: MetadataColumns,
    labels_folder: Path,
    clusters_path: Path,
    invalid_path: Path,
) -> dict[str, Any]:
    """Write the clusters of one part, and its invalid rows."""
    if part.rows:
        invalid = read_invalid(layout, part)
        if "invalid_reason" in invalid:
            invalid["reason"] = [INVALID_REASONS.index(name) for name in invalid["invalid_reason"]]
        labels = read_frame(labels_path(labels_folder, part)).set_index("row_id")
    else:
        invalid = pd.DataFrame({"row_id": [], "reason": []}, dtype=np.int64)
        labels = LABELS
    ids = invalid["row_id"].to_numpy()
    _write_invalid(part, columns, ids, invalid["reason"].to_numpy(), invalid_path)
    return write_clusters(part, columns, labels, ids, layout.parts, clusters_path)


def _write_invalid(
    part: Part, columns: MetadataColumns, ids: np.ndarray, reason: np.ndarray, path: Path
) -> None:
    """Write the rows without a usable embedding, and why: every part, even if there are none."""
    if len(ids):
        metadata = take_rows(read_metadata(part, columns), pa.array(ids - part.row_start))
    else:
        metadata = empty_table(columns)
    names = pa.array([INVALID_REASONS[code] for code in reason], pa.string())
    table = metadata.add_column(0, "invalid_reason", names).add_column(0, "row_id", pa.array(ids))
    write_frame(path, table, table.schema.metadata)


def _keep_audit(layout: PartFiles, folder: Path, queries: int) -> None:
    """Put what the audit compares with where it will be published: for other thresholds later."""
    row_ids = layout.query_ids() if queries else np.empty(0, np.int64)
    write_frame(folder / "queries.parquet", pd.DataFrame({"row_id": row_ids}))
    for part in layout.parts if queries else ():
        path = layout.path("audit", part)
        write_frame(folder / f"part-{part.index:05d}.parquet", read_frame(path))


def _judge_audit(
    layout: PartFiles, labels: DenseLabels | SparseLabels, threshold: float, seed: int
) -> dict[str, Any]:
    began = time.perf_counter()
    row_ids = layout.query_ids()
    pairs = pd.concat(
        [read_frame(layout.path("audit", part)) for part in layout.parts], ignore_index=True
    )
    true = pairs[pairs["similarity"] >= np.float32(threshold)]
    result = judge(row_ids, true, labels.of, seed).to_dict()
    return {**result, "seconds": time.perf_counter() - began}
