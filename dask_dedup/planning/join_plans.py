"""What each stage of the finder join will cost: counts from the code, times from `Rates`.

N rows of ``dim`` values, v cells per row, C cells in sqrt(C) coarse ones, k = ``kept`` axes and P
parts in S spans; what a task takes at a time is imported from the code of the stage.
"""

from __future__ import annotations

from math import ceil

from dask_dedup.cells import join_groups
from dask_dedup.cells.entries import MERGE_BYTES, MOST_FILES
from dask_dedup.cells.sizes import (
    BATCH_PAIRS,
    BLOCK_ROWS,
    COARSE_SAMPLE,
    FINE_TASKS,
    ITERATIONS,
    LEADER_SAMPLE,
    MOST_CELLS_PER_ROW,
    READ_BYTES,
)
from dask_dedup.planning.stage_cost import (
    EDGE_BYTES,
    SMALLER_PARTS,
    Cost,
    cost_of,
    single_bytes,
    waves,
)
from dask_dedup.planning.workload import Machine, Rates, Workload

__all__ = [
    "count_groups",
    "plan_fit",
    "plan_join",
    "plan_layout",
    "plan_merge",
]

#: Measured on 10^6 synthetic rows: cells differ in size, their squared coefficient of variation.
CELL_SPREAD = 0.28
#: Distinct rows among a task's entries (3 * 10^5 synthetic rows, 105 tasks): a row's cells are
#: neighbours, but mostly not in one task.
ROWS_PER_ENTRY = 0.75
#: Of a task's rows those with a candidate, of which the full vector is read.
LOOKED_UP = 1 / 3
HEAP_SHARE = 1.45  # resident bytes by those in use, task after task (10^7 rows, 2 GB a worker)


def plan_fit(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the PCA and the training of the cells.

    With s = the PCA's sample, n = 24 C rows (at least 4,096, at most N), m = n / sqrt(C):

    - singly read rows: s + n + queries + 4,096 for leaders; hashes: 4 N on one core
    - PCA, one task, float64 (half the rate): 2 s dim^2 + 10 dim^3
    - projections of the sample, a task a span: 2 n dim k
    - coarse, one task: 10 iterations of 2 k sqrt(C) min(256 sqrt(C), n), then 2 k n sqrt(C)
    - 16 tasks: thinning n m (k + 2); fine k-means 10 * 2 k n sqrt(C)
    - memory: the sample three times, 3 * 4 k n, or the PCA's at 28 bytes a value
    """
    n, s, k, coarse = work.sample, min(work.rows, work.sample_rows), work.kept, work.coarse
    singles = s + n + min(work.rows, work.queries) + min(work.rows, LEADER_SAMPLE)
    pca_flops = 2.0 * s * work.dim**2 + 10.0 * work.dim**3
    projection_flops = 2.0 * n * work.dim * k
    coarse_flops = 2.0 * k * coarse * (ITERATIONS * min(COARSE_SAMPLE * coarse, n) + n)
    thin_flops = n * (n / coarse) * (k + 2.0)
    fine_flops = 2.0 * k * n * coarse * ITERATIONS
    shared = min(FINE_TASKS, machine.workers, max(1, round(coarse)))
    tasks = 3 * work.spans + 4 + 3 * FINE_TASKS
    alone = (
        4 * work.rows / rates.hashed_rows
        + 2 * pca_flops / rates.projection_flops
        + coarse_flops / rates.kmeans_flops
        + tasks * rates.task_seconds
    )
    divided = thin_flops / rates.projection_flops + fine_flops / rates.kmeans_flops
    reading = (
        singles / rates.single_reads
        + projection_flops / rates.projection_flops
        + (s + n) * work.dim / rates.prepared_values
    ) / min(machine.workers, work.spans)
    models = 4.0 * k * (work.cells + coarse) + 8.0 * work.dim * (k + 1)
    return cost_of(
        machine,
        tasks=tasks,
        flops=pca_flops + projection_flops + coarse_flops + thin_flops + fine_flops,
        read=single_bytes(work, singles),
        written=models + 4.0 * work.dim * min(work.rows, work.queries),
        seconds=alone + divided / shared + reading,
        memory=max(3 * 4.0 * k * n, 28.0 * s * work.dim),
        advice="The sample of the cells is held in one task: give each worker more with --memory "
        "and fewer --workers, or set fewer --cells or a smaller cells.sample_per_cell.",
    )


def plan_layout(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the layout: a task a span.

    - flops per row: projection 2 dim k, coarse scores 2 k sqrt(C), fine scores 2 k probes sqrt(C),
      audit 2 (k + 4) queries, of integers
    - bytes read: N rows once; written: v entries a row (k + 12 bytes for k = 64) and 8 (C + 1) of
      offsets a span
    - memory for n = N / S rows: arrays over rows 149 + codes, entries and their order
      v * (36 + entry), a block of rows with its scores, the centroids (4 k + 8) C, offsets
    """
    k, coarse, per_row = work.kept, work.coarse, work.scored
    projection = 2.0 * work.dim * k
    scores = 2.0 * k * (coarse + per_row)
    audit = 2.0 * (k + 4) * work.queries
    offsets = work.spans * 8.0 * (work.cells + 1)
    read, written = float(work.rows * work.row_bytes), work.entries * work.entry_bytes + offsets
    flop_seconds = (projection + scores) / rates.projection_flops + audit / rates.filter_ops
    row_seconds = (
        flop_seconds / machine.threads
        + work.dim / rates.prepared_values
        + (coarse + per_row) / rates.scores
        + work.queries / rates.scanned
        + (1 + work.effective_cells_per_row) / rates.sorted_keys
    )
    core_seconds = (
        work.rows * row_seconds
        + read / rates.read_bytes
        + written / rates.write_bytes
        + work.spans * rates.task_seconds
        + work.parts * rates.open_seconds
    )
    rows = work.rows / work.spans
    block = min(BLOCK_ROWS, rows)
    memory = HEAP_SHARE * (
        rows * (17 + 8 * MOST_CELLS_PER_ROW + work.entry_bytes)
        + rows * work.effective_cells_per_row * (36 + work.entry_bytes)
        + block * (work.dim * (work.item_bytes + 4) + 4 * coarse + 12 * k)
        + (4 * k + 8 + 16) * work.cells
    )
    return cost_of(
        machine,
        tasks=work.spans,
        flops=work.rows * (projection + scores + audit),
        read=read,
        written=written,
        seconds=waves(core_seconds, work.spans, machine),
        memory=memory,
        advice=SMALLER_PARTS,
    )


def plan_merge(level: int, work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan a level of merges of entry files, 0 the first; None where there are few enough.

    - bytes: entries and offsets of what is merged, read once and written once
    - memory: the entries of some cells twice, five arrays over the cells
    """
    files = work.spans
    for _ in range(level):
        files = _merged_files(files)
    groups = _merged_files(files)
    if groups == files:
        return None
    moved, tasks = min(1.0, 2 * (files - groups) / files), min(groups, files - groups)
    size = moved * (work.entries * work.entry_bytes + work.spans * 8.0 * (work.cells + 1))
    core_seconds = (
        size * (1 / rates.read_bytes + 1 / rates.write_bytes) + tasks * rates.task_seconds
    )
    return cost_of(
        machine,
        tasks=tasks,
        read=size,
        written=size,
        seconds=waves(core_seconds, tasks, machine),
        memory=2 * MERGE_BYTES + 40.0 * work.cells,
    )


def _merged_files(files: int) -> int:
    """Return the files that a level of merges makes of so many."""
    return files if files <= MOST_FILES else max(MOST_FILES, ceil(files / MOST_FILES))


def count_groups(work: Workload) -> int:
    """Return the number of join tasks, as `dask_dedup.cells.join_groups.plan_groups` cuts them.

    A task takes N v / 64 entries, at least 16,384 and at most 2^18, and 1/64 of all products, at
    least 32,768^2; at most as many tasks as cells.
    """
    most = max(work.entries // join_groups.LEAST_TASKS, join_groups.LEAST_ENTRIES)
    per_group = min(most, join_groups.MOST_ENTRIES)
    products = work.entries * work.entries / work.cells * (1 + CELL_SPREAD)
    cost_per_group = max(products / join_groups.LEAST_TASKS, float(join_groups.TILE_ROWS) ** 2)
    groups = ceil(max(work.entries / per_group, products / cost_per_group))
    return max(1, min(groups, work.cells))


def plan_join(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the join.

    - products: N v * (N v / C) * (1 + 0.28) / 2 pairs of 2 (k + 4) operations, each looked at
    - bytes read: every entry and offset once, and the full vectors of a third of each task's rows
      singly; written: the task forests
    - pairs verified: ``pairs_per_row`` a row, dim values each
    - before it, on one core: the offsets of all files are read to cut the tasks
    - memory for r entries a task: r * (entry + 16 + ranks and keys 80), the full rows read and
      their copy, a batch of pairs
    """
    k, tasks, entries = work.kept, count_groups(work), work.entries
    pairs = entries * (entries / work.cells) * (1 + CELL_SPREAD) / 2
    flops = pairs * 2.0 * (k + 4)
    singles = entries * ROWS_PER_ENTRY * LOOKED_UP
    files = min(work.spans, MOST_FILES)
    offsets = files * 8.0 * (work.cells + 1)
    read = entries * work.entry_bytes + 2 * offsets + single_bytes(work, singles)
    found = work.found_edges
    written = found * EDGE_BYTES
    verified = work.rows * work.pairs_per_row
    core_seconds = (
        flops / rates.filter_ops / machine.threads
        + pairs / rates.scanned
        + (entries * work.entry_bytes + offsets) / rates.read_bytes
        + 2 * entries / rates.sorted_keys
        + singles / rates.single_reads
        + verified * work.dim / rates.verified_values
        + verified / rates.merged_edges / 8  # most fall within a tree at once, unsorted
        + written / rates.write_bytes
        + tasks * (rates.task_seconds + files * rates.open_seconds)
    )
    seconds = waves(core_seconds, tasks, machine)
    seconds += offsets / rates.read_bytes + files * rates.open_seconds
    width = work.entry_bytes + 16 + 80
    looked_up = min(READ_BYTES, singles / tasks * work.dim * 6)
    memory = HEAP_SHARE * (entries / tasks * width + 4 / 3 * looked_up + 100 * BATCH_PAIRS)
    return cost_of(
        machine,
        tasks=tasks,
        flops=flops,
        read=read,
        written=written,
        seconds=seconds,
        memory=memory,
        advice="Give each worker more with --memory and fewer --workers, or compare less with "
        "--cells-per-row.",
    )
