"""What one stage of a run will cost, and the arithmetic that the plans of all stages share."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from dask_dedup.planning.workload import Machine, Workload
from dask_dedup.runtime.limits import WORKER_BYTES

__all__ = [
    "ARRAY_SECONDS",
    "EDGE_BYTES",
    "LABEL_BYTES",
    "MORE_MEMORY",
    "PROCESS_BYTES",
    "SMALLER_PARTS",
    "Cost",
    "StagePlan",
    "cost_of",
    "labelled_rows",
    "single_bytes",
    "waves",
]

PAGE_BYTES = 4096  # the least that a single read takes from a disk
EDGE_BYTES = 20  # src, dst, similarity
LABEL_BYTES = 10  # of a labelled row in its parquet file
ARRAY_SECONDS = 4e-9  # to fill and follow an array over all rows, a row (10^9 rows)
PROCESS_BYTES = WORKER_BYTES  # of a worker, before it does anything
SMALLER_PARTS = (
    "It grows with the rows of a part: cut the data set into smaller files, or give each worker "
    "more with --memory and fewer --workers."
)
MORE_MEMORY = "Give each worker more with --memory and fewer --workers."


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one stage: ``memory_bytes`` is the peak of one task, all else is of all tasks together."""

    tasks: int
    flops: float
    bytes_read: float
    bytes_written: float
    result_bytes: float
    """Of the bytes written, those that stay when the working files are deleted."""
    seconds: float
    memory_bytes: float
    advice: str
    """What to change where a task does not fit."""


@dataclass(frozen=True, kw_only=True)
class StagePlan(Cost):
    """The cost of a stage, with its name: that of `dask_dedup.pipeline.stages`."""

    name: str


def cost_of(
    machine: Machine,
    *,
    tasks: int,
    seconds: float,
    memory: float,
    read: float = 0.0,
    written: float = 0.0,
    result: float = 0.0,
    flops: float = 0.0,
    advice: str = MORE_MEMORY,
) -> Cost:
    """Return a cost: no less time than the storage needs for the bytes, no less than a process.

    ``memory`` : of a task, beside what its process takes before it does anything.
    """
    if machine.disk_bytes is not None:
        seconds = max(seconds, (read + written) / machine.disk_bytes)
    return Cost(
        tasks=tasks,
        flops=flops,
        bytes_read=read,
        bytes_written=written,
        result_bytes=result,
        seconds=seconds,
        memory_bytes=memory + PROCESS_BYTES,
        advice=advice,
    )


def waves(core_seconds: float, tasks: int, machine: Machine) -> float:
    """Return the time of equal tasks: rounds of as many as there are workers."""
    return core_seconds / tasks * ceil(tasks / machine.workers)


def single_bytes(work: Workload, rows: float) -> float:
    """Return what reading rows singly takes from a disk: a page each, at least."""
    return rows * max(PAGE_BYTES, work.row_bytes)


def labelled_rows(work: Workload) -> float:
    """Return the rows in clusters of two or more: 1.5 for each duplicate."""
    return 1.5 * work.edges
