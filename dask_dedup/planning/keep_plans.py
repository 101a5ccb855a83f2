"""What the stages of ``[keep]`` will cost: None where the settings ask for none of it.

E duplicates, 1.5 E rows with a label, in buckets of clusters.
"""

from __future__ import annotations

from dask_dedup.planning.stage_cost import (
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
from dask_dedup.results.sizes import COMPARED_BYTES, cluster_buckets

__all__ = [
    "plan_carry",
    "plan_decide",
    "plan_place",
    "plan_rank",
    "plan_settle",
    "plan_values",
]

KEY_BYTES = 12  # of a row's role and sort key, or its rank, in a file
EXPRESSION_SECONDS = 0.3  # until a worker has DuckDB at hand
BUCKET_ROW_BYTES = 200  # of a row whose bucket is in memory


def plan_decide(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the rows of the decisions: each part's metadata is read. Memory: a part's, twice."""
    if not work.has_decisions:
        return None
    read = work.rows * work.metadata_bytes
    core_seconds = read / rates.table_bytes + work.parts * rates.task_seconds
    return cost_of(
        machine,
        tasks=work.spans,
        read=read,
        seconds=waves(core_seconds, work.spans, machine),
        memory=2 * work.rows / work.parts * work.metadata_bytes,
        advice=SMALLER_PARTS,
    )


def plan_values(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan roles and sort keys: a task a span. Memory: a part's metadata twice, 100 bytes a row."""
    if not work.is_ranked:
        return None
    labels = labelled_rows(work)
    read = labels * LABEL_BYTES + work.ordering_columns_bytes * work.rows
    written = labels * (LABEL_BYTES + KEY_BYTES)
    core_seconds = (read + written) / rates.table_bytes + work.spans * rates.task_seconds
    start = EXPRESSION_SECONDS * (work.ordering_columns_bytes > 0)
    rows = work.rows / work.parts
    return cost_of(
        machine,
        tasks=work.spans,
        read=read,
        written=written,
        seconds=start + waves(core_seconds, work.spans, machine),
        memory=2 * rows * work.ordering_columns_bytes + 100 * labels / work.spans,
        advice=SMALLER_PARTS,
    )


def plan_rank(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the ranks: a task a bucket, which is in memory; all rows singly where medoids stay."""
    if not work.is_ranked:
        return None
    labels, tasks = labelled_rows(work), cluster_buckets(round(work.edges))
    singles = labels if work.by_medoid else 0.0
    read, written = labels * (LABEL_BYTES + KEY_BYTES), labels * KEY_BYTES
    core_seconds = (read + written) / rates.table_bytes + 4 * labels / rates.sorted_keys
    core_seconds += singles / rates.single_reads + singles * work.dim / rates.verified_values
    core_seconds += tasks * (rates.task_seconds + work.spans * rates.open_seconds)
    return cost_of(
        machine,
        tasks=tasks,
        read=read + single_bytes(work, singles),
        written=written,
        seconds=waves(core_seconds, tasks, machine),
        memory=BUCKET_ROW_BYTES * labels / tasks + 6 * COMPARED_BYTES * (singles > 0),
    )


def plan_place(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the rows that may have to go: a task a span; at most every row with a label."""
    if not work.is_settled:
        return None
    labels = labelled_rows(work)
    read, written = 2 * labels * LABEL_BYTES, labels * (LABEL_BYTES + KEY_BYTES)
    core_seconds = (read + written) / rates.table_bytes + work.spans * rates.task_seconds
    return cost_of(
        machine,
        tasks=work.spans,
        read=read,
        written=written,
        seconds=waves(core_seconds, work.spans, machine),
        memory=100 * labels / work.spans,
    )


def plan_settle(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan who stays: a task a bucket; at most every row is read and compared once more."""
    if not work.is_settled:
        return None
    labels, tasks = labelled_rows(work), cluster_buckets(round(work.edges))
    read, written = labels * (LABEL_BYTES + KEY_BYTES), work.edges * EDGE_BYTES
    core_seconds = (read + written) / rates.table_bytes + labels / rates.single_reads
    core_seconds += labels * work.dim / rates.verified_values
    core_seconds += tasks * (rates.task_seconds + work.spans * rates.open_seconds)
    return cost_of(
        machine,
        tasks=tasks,
        read=read + single_bytes(work, labels),
        written=written,
        seconds=waves(core_seconds, tasks, machine),
        memory=BUCKET_ROW_BYTES * labels / tasks + 6 * COMPARED_BYTES,
    )


def plan_carry(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the values that go to other rows: a task a span, which reads the metadata once more."""
    if not work.merged_bytes:
        return None
    labels = labelled_rows(work)
    read = work.rows * work.merged_bytes + 2 * labels * LABEL_BYTES
    written = work.edges * (work.merged_bytes + KEY_BYTES)
    core_seconds = (read + written) / rates.table_bytes + work.parts * rates.task_seconds
    rows = work.rows / work.parts
    return cost_of(
        machine,
        tasks=work.spans,
        read=read,
        written=written,
        seconds=waves(core_seconds, work.spans, machine),
        memory=4 * rows * work.merged_bytes + 100 * labels / work.spans,
        advice=SMALLER_PARTS,
    )
