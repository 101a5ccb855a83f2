"""What one stage of a run will cost, and the arithmetic that the plans of all stages share."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from dask_dedup.planning.workload import Machine, Workload

__all__ = ["StagePlan", "at_least_disk", "single_bytes", "waves"]

PAGE_BYTES = 4096  # the least that a single read takes from a disk


@dataclass(frozen=True)
class StagePlan:
    """One stage: ``memory_bytes`` is the peak of one task, all else is of all tasks together."""

    name: str
    tasks: int
    flops: float
    bytes_read: float
    bytes_written: float
    seconds: float
    memory_bytes: float
    advice: str
    """What to change where a task does not fit."""


def waves(core_seconds: float, tasks: int, machine: Machine) -> float:
    """Return the time of equal tasks: rounds of as many as there are workers."""
    return core_seconds / tasks * ceil(tasks / machine.workers)


def single_bytes(work: Workload, rows: float) -> float:
    """Return what reading rows singly takes from a disk: a page each, at least."""
    return rows * max(PAGE_BYTES, work.row_bytes)


def at_least_disk(seconds: float, read: float, written: float, machine: Machine) -> float:
    """Return the time, no less than the storage needs for the bytes."""
    if machine.disk_bytes is None:
        return seconds
    return max(seconds, (read + written) / machine.disk_bytes)
