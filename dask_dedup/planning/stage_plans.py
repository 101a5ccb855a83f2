"""What each stage of a run will cost: the list of all plans, and those that every finder shares.

A plan is a function of the workload, the machine and the rates; it returns None where this run has
no such stage. Those of a finder stand in `join_plans` and `adc_plans`, those of ``[keep]`` in
`keep_plans`. The names are those of `dask_dedup.pipeline.stages`: a test compares them.

N rows of ``dim`` values in P parts and S spans; E duplicates, each an edge of the forest, and 1.5 E
rows with a label. What a task takes at a time is imported from the code of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil

from dask_dedup.graph.choice import BAND_BYTES, BAND_EDGES, row_bytes
from dask_dedup.planning.adc_plans import plan_search, plan_shards, plan_tolerance, plan_train
from dask_dedup.planning.join_plans import (
    count_groups,
    plan_fit,
    plan_join,
    plan_layout,
    plan_merge,
)
from dask_dedup.planning.keep_plans import (
    plan_carry,
    plan_decide,
    plan_place,
    plan_rank,
    plan_settle,
    plan_values,
)
from dask_dedup.planning.stage_cost import (
    ARRAY_SECONDS,
    EDGE_BYTES,
    LABEL_BYTES,
    SMALLER_PARTS,
    Cost,
    cost_of,
    labelled_rows,
    single_bytes,
    waves,
)
from dask_dedup.planning.workload import Machine, Rates, Workload
from dask_dedup.results.sizes import (
    COMPARED_BYTES,
    GROUPED_ROWS,
    GROUPED_TASKS,
    PAGE_ROWS,
    PAGE_TASKS,
    WINDOW_ROWS,
)

__all__ = ["STAGE_PLANS", "plans_of"]

#: Of the duplicates, those below the threshold to the representative of their cluster.
BELOW = 0.1
COMPARISON_BYTES = 6 * COMPARED_BYTES  # rows and representatives, stored and as float32
GROUPED_BYTES = 100  # of a row below the threshold, in the one task that puts them into groups
#: The page, of a core: libraries and the first tasks; a row in both passes (10^6 and 10^7 rows).
PAGE_START_SECONDS, PAGE_ROW_SECONDS = 2.0, 1.2e-6
PAGE_FILE_BYTES = 2e6  # with its pictures
_OWN_BYTES = 9  # of a row's columns of ours, in its parquet file
_ONE_ARRAY = (
    "One task holds an array over all rows: give each worker more with --memory and fewer "
    "--workers."
)
_TWO_ARRAYS = _ONE_ARRAY.replace("an array", "two arrays")


def plan_pack(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the copy of rows that are slow to read singly; None where there are none.

    Memory: a part twice, as it is read and as it is written.
    """
    if not work.packed_rows:
        return None
    size = float(work.packed_rows * work.row_bytes)
    tasks = max(1, ceil(work.spans * work.packed_rows / work.rows))
    core_seconds = size * (1 / rates.read_bytes + 1 / rates.write_bytes)
    core_seconds += work.packed_rows * work.dim / rates.prepared_values
    core_seconds += tasks * rates.task_seconds + work.parts * rates.open_seconds
    return cost_of(
        machine,
        tasks=tasks,
        read=size,
        written=size,
        seconds=waves(core_seconds, tasks, machine),
        memory=2.0 * work.rows / work.parts * work.row_bytes,
        advice=SMALLER_PARTS,
    )


def plan_forest(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the merge: one task that streams all task forests through an array over the rows.

    Each edge is read, sorted in its band and joined once; where there are several bands, its
    similarity is read once more before. Memory: `row_bytes` a row and one band.
    """
    edges = work.found_edges
    bands = max(1, ceil(edges / BAND_EDGES))
    files = work.spans + (count_groups(work) if work.index is None else work.spans)
    seconds = (
        files * rates.open_seconds
        + edges / rates.streamed_edges * (1.3 if bands > 1 else 1.0)
        + work.rows * ARRAY_SECONDS
        + rates.task_seconds
    )
    id_bytes = row_bytes(work.rows)
    written = work.edges * EDGE_BYTES
    return cost_of(
        machine,
        tasks=1,
        read=edges * EDGE_BYTES,
        written=written,
        result=written,
        seconds=seconds,
        memory=id_bytes * work.rows + BAND_BYTES[id_bytes] * min(edges, BAND_EDGES),
        advice=_ONE_ARRAY,
    )


def plan_labels(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the labels: one task over the forest, with labels and sizes of all rows in memory."""
    written = labelled_rows(work) * LABEL_BYTES
    seconds = work.rows * ARRAY_SECONDS + work.edges / rates.merged_edges
    seconds += written / rates.table_bytes
    return cost_of(
        machine,
        tasks=1,
        read=work.edges * EDGE_BYTES,
        written=written,
        seconds=seconds + work.spans * rates.open_seconds + rates.task_seconds,
        memory=2.0 * row_bytes(work.rows) * work.rows,
        advice=_TWO_ARRAYS,
    )


def plan_compare(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the similarities to representatives: a task a span.

    - duplicates and their representatives (1.5 rows a duplicate) are read singly and compared
    - memory: 64 bytes a labelled row of the span, and what is compared at a time
    """
    labels = labelled_rows(work)
    below = BELOW * work.edges
    read, written = labels * LABEL_BYTES, labels * LABEL_BYTES + below * EDGE_BYTES
    if work.is_ranked:
        read += labels * LABEL_BYTES
    core_seconds = (read + written) / rates.table_bytes + labels / rates.single_reads
    core_seconds += work.edges * work.dim / rates.verified_values
    core_seconds += work.spans * rates.task_seconds
    return cost_of(
        machine,
        tasks=work.spans,
        read=read + single_bytes(work, labels),
        written=written,
        seconds=waves(core_seconds, work.spans, machine),
        memory=64 * labels / work.spans + COMPARISON_BYTES,
    )


def plan_groups(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the groups of rows below the threshold: one task, which holds all of these."""
    if not work.has_witnesses:
        return None
    below = BELOW * work.edges
    read = below * EDGE_BYTES + work.edges * EDGE_BYTES
    return cost_of(
        machine,
        tasks=1,
        read=read,
        written=below * 8,
        seconds=read / rates.read_bytes
        + work.edges / rates.merged_edges
        + below / rates.sorted_keys
        + work.spans * rates.open_seconds
        + rates.task_seconds,
        memory=GROUPED_BYTES * below,
        advice="One task holds all rows that are below the threshold to their representative: "
        "give each worker more with --memory and fewer --workers.",
    )


def plan_witnesses(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan which rows stay: nothing is done where a representative stands for all of its cluster.

    - those below the threshold to their representative (a tenth of the duplicates) are read again,
      and compared in windows: 2 dim 1024 flops each at most
    - memory: what is compared at a time
    """
    if not work.has_witnesses:
        return cost_of(machine, tasks=0, seconds=0.0, memory=0.0)
    below = BELOW * work.edges
    tasks = max(1, ceil(below / max(GROUPED_ROWS, below / GROUPED_TASKS)))
    flops = 2.0 * work.dim * WINDOW_ROWS * below
    core_seconds = below * EDGE_BYTES / rates.table_bytes + below / rates.single_reads
    core_seconds += flops / rates.projection_flops + tasks * rates.task_seconds
    return cost_of(
        machine,
        tasks=tasks,
        flops=flops,
        read=below * 8 + single_bytes(work, below),
        written=below * EDGE_BYTES,
        seconds=waves(core_seconds, tasks, machine),
        memory=32 * below / tasks + COMPARISON_BYTES,
    )


def plan_clusters(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the metadata, read and written by parts.

    Memory: a part's metadata four times, 64 bytes of ours a row, and 64 a labelled row of the span.
    """
    labels = labelled_rows(work)
    carried = work.edges * work.merged_bytes
    read = work.rows * work.metadata_bytes + labels * LABEL_BYTES + carried
    written = work.rows * (work.metadata_bytes + _OWN_BYTES) + carried
    core_seconds = (read + written) / rates.table_bytes + work.parts * rates.task_seconds
    rows = work.rows / work.parts
    return cost_of(
        machine,
        tasks=work.spans,
        read=read,
        written=written,
        result=written,
        seconds=waves(core_seconds, work.spans, machine),
        memory=rows * (4 * work.metadata_bytes + 64) + 64 * labels / work.spans,
        advice=SMALLER_PARTS,
    )


def plan_report(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the page: two passes over the clusters, which read columns of ours and the texts.

    Memory: a row group, of at most a part, and as much again of its texts.
    """
    if not work.has_page:
        return None
    tasks = max(1, min(work.parts, PAGE_TASKS, ceil(work.rows / PAGE_ROWS)))
    core_seconds = work.rows * PAGE_ROW_SECONDS + 2 * tasks * rates.task_seconds
    rows = min(work.rows / work.parts, 2**20)  # of a row group, as pyarrow cuts them
    return cost_of(
        machine,
        tasks=2 * tasks,
        read=work.rows * (2.0 * _OWN_BYTES + work.metadata_bytes),
        written=PAGE_FILE_BYTES,
        result=PAGE_FILE_BYTES,
        seconds=PAGE_START_SECONDS + waves(core_seconds, tasks, machine),
        memory=rows * (64 + 4 * work.metadata_bytes),
        advice=SMALLER_PARTS,
    )


PlanStage = Callable[[Workload, Machine, Rates], Cost | None]

_OF_FINDER: dict[str, dict[str, PlanStage]] = {
    "join": {
        "fit": plan_fit,
        "layout": plan_layout,
        "merge": partial(plan_merge, 0),
        "merge-2": partial(plan_merge, 1),
        "merge-3": partial(plan_merge, 2),
        "join": plan_join,
    },
    "adc": {
        "train": plan_train,
        "shards": plan_shards,
        "tolerance": plan_tolerance,
        "search": plan_search,
    },
}
#: In the order in which a run does them.
STAGE_PLANS: Mapping[str, PlanStage] = {
    "decide": plan_decide,
    "pack": plan_pack,
    **_OF_FINDER["join"],
    **_OF_FINDER["adc"],
    "forest": plan_forest,
    "labels": plan_labels,
    "values": plan_values,
    "rank": plan_rank,
    "compare": plan_compare,
    "groups": plan_groups,
    "witnesses": plan_witnesses,
    "place": plan_place,
    "settle": plan_settle,
    "carry": plan_carry,
    "clusters": plan_clusters,
    "report": plan_report,
}


def plans_of(work: Workload) -> dict[str, PlanStage]:
    """Return the plans of the stages that a run with this finder may have, in their order."""
    own = _OF_FINDER.get(work.finder, {})
    others = set().union(*_OF_FINDER.values()) - set(own)
    return {name: plan for name, plan in STAGE_PLANS.items() if name not in others}
