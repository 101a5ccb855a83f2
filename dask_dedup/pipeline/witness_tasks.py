"""What the workers do to find witnesses: see `dask_dedup.results.witness`.

1. compare: each span's duplicates with the representatives of their clusters.
2. group: the rows below the threshold to theirs, of all spans, become groups in task files.
3. find: the witnesses of the groups of one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from dask_dedup.data.finder_files import FinderFiles
from dask_dedup.data.spans import Span
from dask_dedup.graph.stream import read_weighted_edges
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.stage_tasks import labels_path
from dask_dedup.results.members import compare_members, rows_below
from dask_dedup.results.witness import find_witnesses
from dask_dedup.results.witness_files import dropped_rows, write_dropped
from dask_dedup.results.witness_groups import group_rows
from dask_dedup.storage.files import read_arrays, read_frame, write_arrays, write_frame

__all__ = ["compare_span", "find_and_write", "group_below"]

_MOST_TASKS = 64  # each span reads its rows out of the files of all
_LEAST_ROWS = 8192  # of a task


def compare_span(
    layout: FinderFiles, span: Span, labels_folder: AnyPath, folder: AnyPath, threshold: float
) -> dict[str, int]:
    """Write a span's LABELS with similarities, and apart the rows below the threshold."""
    labels = read_frame(labels_path(labels_folder, span)).set_index("row_id")
    members = compare_members(labels, layout.part_list.rows)
    write_frame(labels_path(folder, span), members.reset_index())
    below = rows_below(members, threshold)
    write_frame(_below_path(folder, span), below)
    return {"rows": span.rows, "below": len(below)}


def group_below(
    layout: FinderFiles,
    compared: AnyPath,
    forest_path: AnyPath,
    rows: int,
    threshold: float,
    folder: AnyPath,
) -> dict[str, int]:
    """Put the rows below the threshold into groups, and these into files of a task each."""
    below = pd.concat([read_frame(_below_path(compared, span)) for span in layout.spans])

    def edges() -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return read_weighted_edges(forest_path, rows, threshold)

    groups = group_rows(below["row_id"].to_numpy(), below["cluster_id"].to_numpy(), edges)
    pieces = groups.cut(max(_LEAST_ROWS, -(-len(groups.row_ids) // _MOST_TASKS)))
    for number, piece in enumerate(pieces):
        write_arrays(_group_path(folder, number), row_ids=piece.row_ids, starts=piece.starts)
    return {"tasks": len(pieces), "compared": len(groups.row_ids)}


def find_and_write(
    layout: FinderFiles, groups: AnyPath, number: int, threshold: float, folder: AnyPath
) -> dict[str, Any]:
    """Find witnesses in the groups of one file, and write the rows that are dropped for them."""
    arrays = read_arrays(_group_path(groups, number))
    row_ids, starts = arrays["row_ids"], arrays["starts"]
    found = find_witnesses(row_ids, starts, layout.part_list.rows.gather, threshold)
    dropped = dropped_rows(row_ids, found)
    name = f"dropped-{number:05d}.parquet"
    write_dropped(dropped, folder / name)
    return {"dropped": len(dropped), "file": name}


def _group_path(folder: AnyPath, number: int) -> AnyPath:
    return folder / f"groups-{number:05d}.safetensors"


def _below_path(folder: AnyPath, span: Span) -> AnyPath:
    return folder / f"below-{span.index:05d}.parquet"
