"""What plans each stage: every stage of `dask_dedup.pipeline.stages`, by its name.

A plan is a function of the workload, the machine and the rates; it returns None where this run has
no such stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from dask_dedup.planning.adc_plans import plan_search, plan_shards, plan_tolerance, plan_train
from dask_dedup.planning.join_plans import plan_fit, plan_join, plan_layout, plan_merge
from dask_dedup.planning.keep_plans import (
    plan_carry,
    plan_decide,
    plan_place,
    plan_rank,
    plan_settle,
    plan_values,
)
from dask_dedup.planning.shared_plans import (
    plan_clusters,
    plan_compare,
    plan_forest,
    plan_groups,
    plan_labels,
    plan_pack,
    plan_report,
    plan_witnesses,
)
from dask_dedup.planning.stage_cost import Cost
from dask_dedup.planning.workload import Machine, Rates, Workload

__all__ = ["STAGE_PLANS", "plans_of"]

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
    own = _OF_FINDER[work.finder]
    others = set().union(*_OF_FINDER.values()) - set(own)
    return {name: plan for name, plan in STAGE_PLANS.items() if name not in others}
