"""What a run will cost, before it runs: a model of every stage, in pure functions on numbers.

The stages' own costs are in `stage_plans`, which names them; here they are put together, and a run
that cannot fit is refused.

Where a run breaks first as N grows, by memory of one task: the labels, 8 bytes a row (17 GB at
2.1 * 10^9 rows), then the training of the cells: 15 GB at C = 820,000 with k = 64, since their
sample is held in one task three times at once. The coarse k-means runs in that task, too, on one
core, whatever the cluster.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dask_dedup.errors import CapacityError
from dask_dedup.planning.stage_cost import StagePlan
from dask_dedup.planning.stage_plans import plans_of
from dask_dedup.planning.workload import Machine, Rates, Workload
from dask_dedup.report.plan_table import size_text

__all__ = [
    "Plan",
    "StagePlan",
    "describe",
    "plan",
    "refuse",
]


@dataclass(frozen=True)
class Plan:
    """The stages of a run and what they share.

    ``working_bytes``: the largest size of OUT/stages without the results, deleted in the end.
    """

    workload: Workload
    machine: Machine
    stages: tuple[StagePlan, ...]
    start_seconds: float

    @property
    def seconds(self) -> float:
        """Wall-clock time in all."""
        return self.start_seconds + sum(stage.seconds for stage in self.stages)

    @property
    def working_bytes(self) -> float:
        """Bytes that the stages write and that are no result."""
        return sum(stage.bytes_written - stage.result_bytes for stage in self.stages)

    @property
    def result_bytes(self) -> float:
        """Bytes of the results."""
        return sum(stage.result_bytes for stage in self.stages)

    @property
    def memory_bytes(self) -> float:
        """Peak of the largest task."""
        return max(stage.memory_bytes for stage in self.stages)


def describe(planned: Plan) -> dict[str, Any]:
    """Return a plan as plain numbers, for JSON."""
    return {
        **asdict(planned),
        "seconds": planned.seconds,
        "memory_bytes": planned.memory_bytes,
        "working_bytes": planned.working_bytes,
    }


def plan(work: Workload, machine: Machine, rates: Rates | None = None) -> Plan:
    """Plan a run; computes nothing but numbers."""
    rates = rates or Rates()
    costs = {name: plan_stage(work, machine, rates) for name, plan_stage in plans_of(work).items()}
    stages = tuple(
        StagePlan(name=name, **vars(cost)) for name, cost in costs.items() if cost is not None
    )
    return Plan(work, machine, stages, rates.start_seconds)


def refuse(planned: Plan, memory_bytes: float) -> None:
    """Refuse a run of which a task cannot fit.

    Parameters
    ----------
    planned : Plan
    memory_bytes : float
        What each worker has.

    Raises
    ------
    CapacityError
        Naming the stage that needs most, what it needs, what there is, and what to do.
    """
    worst = max(planned.stages, key=_memory_of)
    if worst.memory_bytes > memory_bytes:
        raise CapacityError(
            f"{worst.name}: a task needs {size_text(worst.memory_bytes)}, a worker has "
            f"{size_text(memory_bytes)}. {worst.advice}"
        )


def _memory_of(stage: StagePlan) -> float:
    return stage.memory_bytes
