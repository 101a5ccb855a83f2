"""Training cells and writing the layout of a data set, on Dask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from dask.delayed import Delayed, delayed

from dask_dedup.cells.entries import MOST_FILES, plan_merges
from dask_dedup.cells.layout_files import CellLayout
from dask_dedup.cells.sizes import FINE_TASKS, LEADER_SAMPLE, default_cells, default_cells_per_row
from dask_dedup.data.dataset import Dataset
from dask_dedup.data.part_list import write_parts
from dask_dedup.data.spans import cut_spans
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.runtime.executor import Execute, OnWorker, compute_tasks, ignore_result
from dask_dedup.storage.objects import make_folder
from dask_dedup.vectors.sample import sample_row_ids, split_rows

if TYPE_CHECKING:
    from dask_dedup.vectors.pca import PcaModel

__all__ = ["begin_layout", "build_cells", "cells_task"]

_PURPOSE, _LEADER_PURPOSE = 2, 4  # of the samples: see compress.sample


def build_cells(
    dataset: Dataset,
    pca: PcaModel,
    folder: str | AnyPath,
    *,
    cells_per_row: float | None = None,
    cells: int = 0,
    probes: float = 8.0,
    dense_groups: bool = True,
    seed: int = 0,
    span_rows: int = 0,
    most_files: int = MOST_FILES,
    execute: Execute = compute_tasks,
) -> CellLayout:
    """Train cells and write the cell-sorted layout of a data set; computes.

    Parameters
    ----------
    dataset : Dataset
    pca : PcaModel
        From `dask_dedup.fit_pca`.
    folder : path
        Where the layout goes; ``cells_per_row * (kept + 9)`` bytes a row, filled up to a
        multiple of 4.
    cells_per_row : float, optional
        Cells in which a row is compared on average, its nearest included; chosen by the number of
        rows if None.
    cells : int
        Number of cells; 0 chooses by the number of rows.
    probes : float
        Coarse cells whose fine cells are considered for a row, on average.
    dense_groups : bool
        Whether rows that nearly equal a percent of the data set are entered into one cell only and
        linked to one of them: for thresholds below `dask_dedup.cells.leaders.SAME_SIMILARITY`.
    seed : int
    span_rows : int
        Rows that one task reads, however many parts they are in, or a larger part; 0 chooses by the
        number of rows: see `dask_dedup.data.spans.cut_spans`.
    most_files : int
        Files of entries that a task of the join reads, two at least; where there are more, they are
        merged: see `dask_dedup.cells.entries`.

    Returns
    -------
    CellLayout
        A handle: where the layout lies, and what it was made with.

    Notes
    -----
    At 2 * 10^9 rows of 768 values, `dask-dedup plan` reckons with 7.9 GB for the task that trains
    the cells, 3.1 GB for one that writes the layout of a part of a million rows, and 2.3 TB of
    files.
    """
    layout = begin_layout(dataset, folder, pca.kept, cells, dense_groups, span_rows)
    task = cells_task(dataset, pca, layout, cells_per_row=cells_per_row, probes=probes, seed=seed)
    (trained,) = execute([task], ignore_result)
    layout = replace(layout, cells=trained)
    write = delayed(OnWorker("dask_dedup.cells.layout", "layout_span"))
    counts = execute([write(layout, span) for span in layout.spans], ignore_result)
    files = [
        layout.entry_file(span, count.entries)
        for span, count in zip(layout.spans, counts, strict=True)
    ]
    level = 0
    merge = delayed(OnWorker("dask_dedup.cells.entries", "merge_entries"))
    while len(files) > most_files:
        level += 1
        merged = plan_merges(files, as_path(folder) / f"merge-{level}", most_files)
        execute([merge(layout, *task) for task in merged.tasks], ignore_result)
        files = merged.files
    layout.write_entry_files(files)
    return layout


def begin_layout(
    dataset: Dataset,
    folder: str | AnyPath,
    kept: int,
    cells: int = 0,
    dense_groups: bool = True,
    span_rows: int = 0,
) -> CellLayout:
    """Make the folder of a layout and write its list of parts; ``cells`` is how many are wanted."""
    make_folder(as_path(folder))
    layout = CellLayout(str(folder), kept, cells or default_cells(dataset.rows), dense_groups)
    write_parts(dataset.filled_parts, as_path(layout.parts_path), span_rows)
    return layout


def cells_task(
    dataset: Dataset,
    pca: PcaModel | Delayed,
    layout: CellLayout,
    *,
    cells_per_row: float | None = None,
    probes: float = 8.0,
    sample_per_cell: int = 24,
    seed: int = 0,
) -> Delayed:
    """Return the task that trains a layout's cells and writes both models: the number of cells.

    Coarse centroids are trained in one task, the fine ones of each coarse cell in one task with
    one thread, on the rows of smallest hash(seed, row_id).

    Parameters
    ----------
    pca : PcaModel, or the task that makes it
    layout : CellLayout
        From `begin_layout`: with the number of cells that is wanted. Fewer may come of it.
    sample_per_cell : int
        Rows of the sample per cell; others as in `build_cells`.
    """
    wanted = layout.cells
    cells_per_row = cells_per_row or default_cells_per_row(dataset.rows)
    pca_path = _task("write_pca")(pca, layout.pca_path)
    spans = cut_spans(dataset.filled_parts)
    chosen = sample_row_ids(dataset.rows, max(4096, sample_per_cell * wanted), seed, _PURPOSE)
    blocks = [
        _task("read_projections")(span, ids, pca_path, seed)
        for span, ids in split_rows(chosen, spans)
    ]
    few = np.empty(0, np.int64)
    if layout.dense_groups:
        few = sample_row_ids(dataset.rows, LEADER_SAMPLE, seed, _LEADER_PURPOSE)
    pieces = [_task("read_stored")(span, ids) for span, ids in split_rows(few, spans)]
    leaders = _task("choose_leaders")(few, pieces, pca_path, layout.leaders_path)
    coarse = _task("train_coarse_cells")(blocks, layout.kept, wanted, seed)
    thinned = [_task("thin_some")(coarse, layout.kept, share) for share in range(FINE_TASKS)]
    counts = delayed(list)([_task("count_rows")(members) for members in thinned])
    fine = [_task("train_some")(members, counts, wanted, seed) for members in thinned]
    return _task("combine")(coarse, fine, blocks, leaders, probes, cells_per_row, layout.cells_path)


def _task(name: str) -> Delayed:
    return delayed(OnWorker("dask_dedup.cells.build_tasks", name))
