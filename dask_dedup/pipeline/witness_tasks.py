"""What the workers do to find witnesses: see `dask_dedup.results.witness`.

1. compare: each span's duplicates with the representatives of their clusters, and ranked ones with
   the first row of theirs.
2. group: the rows below the threshold to theirs, of all spans, become groups in task files.
3. find: the witnesses of the groups of one file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dask_dedup.data.finder_files import FinderFiles
from dask_dedup.data.spans import Span
from dask_dedup.graph.stream import read_weighted_edges
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.span_members import labels_path
from dask_dedup.results.members import compare_members, rows_below
from dask_dedup.results.order import rank_members
from dask_dedup.results.roles import PROTECTED
from dask_dedup.results.sizes import GROUPED_ROWS, GROUPED_TASKS, WINDOW_ROWS
from dask_dedup.results.sorted_files import read_sorted
from dask_dedup.results.witness import find_witnesses
from dask_dedup.results.witness_files import dropped_rows, write_dropped
from dask_dedup.results.witness_groups import GROUP_ROWS, group_rows
from dask_dedup.results.witness_order import ORDERED_ROWS, find_ordered
from dask_dedup.storage.files import read_arrays, read_frame, write_arrays, write_frame

__all__ = ["compare_span", "find_and_write", "group_below"]

RANK_COLUMNS = ["first_row_id", "rank", "role"]


def compare_span(
    layout: FinderFiles,
    span: Span,
    labels_folder: AnyPath,
    folder: AnyPath,
    threshold: float,
    ranks: Sequence[AnyPath] | None = None,
) -> dict[str, int]:
    """Write a span's LABELS with similarities, and apart the rows below the threshold.

    ``ranks``: files of the rows' ranks, where they have any.
    """
    labels = read_frame(labels_path(labels_folder, span)).set_index("row_id")
    if ranks is not None:
        labels[RANK_COLUMNS] = _read_ranks(ranks, span, labels.index)
    members = compare_members(labels, layout.part_list.rows)
    write_frame(labels_path(folder, span), members.reset_index())
    below = rows_below(members, threshold)
    write_frame(_below_path(folder, span), below)
    return {"rows": span.rows, "below": len(below)}


def _read_ranks(paths: Sequence[AnyPath], span: Span, row_ids: pd.Index) -> pd.DataFrame:
    """Return the ranks of a span's rows in clusters."""
    table = read_sorted(paths, span.row_start, span.row_stop)
    if table is None:
        assert not len(row_ids), "no row of the data set has a duplicate"
        none = np.empty(0, np.int64)
        return rank_members(none, none, none.astype(np.uint8))[RANK_COLUMNS]
    ranked = table.to_pandas().set_index("row_id").sort_index()
    assert ranked.index.equals(row_ids), f"span {span.index}: ranks of other rows"
    return ranked[RANK_COLUMNS]


def group_below(
    layout: FinderFiles,
    compared: AnyPath,
    forest_path: AnyPath,
    rows: int,
    threshold: float,
    folder: AnyPath,
    is_ordered: bool = False,
) -> dict[str, int]:
    """Put the rows below the threshold into groups, and these into files of a task each.

    ``is_ordered``: whether ranks decide which rows stay, where rows have any.
    """
    below = pd.concat([read_frame(_below_path(compared, span)) for span in layout.spans])

    def edges() -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return read_weighted_edges(forest_path, rows, threshold)

    row_ids, cluster_ids = below["row_id"].to_numpy(), below["cluster_id"].to_numpy()
    if "role" not in below:
        groups = group_rows(row_ids, cluster_ids, edges, None, GROUP_ROWS, WINDOW_ROWS)
        known = None
    else:
        is_fixed = below["role"].to_numpy() == PROTECTED
        most = ORDERED_ROWS if is_ordered else WINDOW_ROWS
        groups = group_rows(row_ids, cluster_ids, edges, is_fixed, most, WINDOW_ROWS)
        known = below.set_index("row_id")[["rank", "role"]].sort_index()
    # No more files: each span reads its rows out of all of them.
    pieces = groups.cut(max(GROUPED_ROWS, -(-len(groups.row_ids) // GROUPED_TASKS)))
    for number, piece in enumerate(pieces):
        arrays = {"row_ids": piece.row_ids, "starts": piece.starts}
        if known is not None:
            place = known.index.searchsorted(piece.row_ids)
            arrays |= {name: known[name].to_numpy()[place] for name in known}
        write_arrays(_group_path(folder, number), None, **arrays)
    return {"tasks": len(pieces), "compared": len(groups.row_ids)}


def find_and_write(
    layout: FinderFiles,
    groups: AnyPath,
    number: int,
    threshold: float,
    folder: AnyPath,
    is_ordered: bool = False,
) -> dict[str, Any]:
    """Find witnesses in the groups of one file, and write the rows that are dropped for them."""
    arrays = read_arrays(_group_path(groups, number))
    row_ids, starts = arrays["row_ids"], arrays["starts"]
    gather = layout.part_list.rows.gather
    if "role" in arrays:
        ranks, roles = arrays["rank"], arrays["role"]
        found = find_ordered(
            row_ids, starts, ranks, roles, gather, threshold, is_ordered, WINDOW_ROWS
        )
    else:
        found = find_witnesses(row_ids, starts, gather, threshold, WINDOW_ROWS)
    dropped = dropped_rows(row_ids, found)
    dropped = dropped[dropped["witness_row_id"] >= 0]
    name = f"dropped-{number:05d}.parquet"
    write_dropped(dropped, folder / name)
    return {"dropped": len(dropped), "file": name}


def _group_path(folder: AnyPath, number: int) -> AnyPath:
    return folder / f"groups-{number:05d}.safetensors"


def _below_path(folder: AnyPath, span: Span) -> AnyPath:
    return folder / f"below-{span.index:05d}.parquet"
