"""A plan scaled by a finished run: the error of the model is taken to be the same in both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath
from dask_dedup.planning.cost_model import Plan, StagePlan, plan
from dask_dedup.planning.workload import Machine, Rates, Workload, numbers_workload
from dask_dedup.settings.run_settings import load_settings
from dask_dedup.storage.files import read_json

__all__ = ["MeasuredRun", "read_run", "scale_plan", "shares_of"]


@dataclass(frozen=True)
class MeasuredRun:
    """What a finished run says about its cost.

    Attributes
    ----------
    workload : Workload
        With the cells, cells per row, duplicates and verified pairs that the run had.
    machine : Machine
    seconds : dict of str to float
        Of each stage.
    """

    workload: Workload
    machine: Machine
    seconds: dict[str, float]


def read_run(out: AnyPath) -> MeasuredRun:
    """Read the output folder of a finished run.

    Raises
    ------
    SettingsError
        There is no summary of such a run.
    """
    summary: Any = read_json(out / "summary.json")
    try:
        settings = load_settings(out / "settings.toml")
        rows, found = summary["rows"], summary["found"]
        workload = numbers_workload(
            settings,
            rows=rows,
            dim=summary["dim"],
            dtype=summary["dtype"],
            parts=summary["parts"],
            duplicates=summary["duplicates"] / rows,
            pairs_per_row=found["candidates"] / rows,
        )
        if workload.index is None:
            workload = replace(
                workload, cells=found["cells"], cells_per_row=found["entries"] / rows
            )
        seconds = {stage["name"]: float(stage["seconds"]) for stage in summary["stages"]}
        machine = Machine(summary["workers"], settings.compute.threads)
        return MeasuredRun(workload, machine, seconds)
    except (KeyError, TypeError) as error:
        raise SettingsError(
            f"{out}: not the folder of a finished run of this version (no {error} in summary.json)."
            if isinstance(error, KeyError)
            else f"{out}: has no summary.json of a finished run."
        ) from error


def scale_plan(planned: Plan, run: MeasuredRun, rates: Rates) -> Plan:
    """Multiply each stage's time by what the run took over what the model says of the run.

    It holds where the new run is like the old one: the same kind of machine and data. A stage
    that the run resumed counts with the time of its last start only. Where the run has measured
    several stages as one, they share its factor; a stage that the run did not have stays.
    """
    factors: dict[str, float] = {}
    together: list[StagePlan] = []
    for stage in plan(run.workload, run.machine, rates).stages:
        together.append(stage)
        if stage.name in run.seconds:  # with those before it
            factor = run.seconds[stage.name] / sum(one.seconds for one in together)
            factors |= dict.fromkeys((one.name for one in together), factor)
            together = []
    stages = tuple(
        replace(stage, seconds=stage.seconds * factors.get(stage.name, 1.0))
        for stage in planned.stages
    )
    return replace(planned, stages=stages)


def shares_of(run: MeasuredRun | None) -> dict[str, Any]:
    """Return the share of duplicates and the pairs verified a row: the run's, or the defaults."""
    if run is None:
        return {"duplicates": Workload.duplicates, "pairs_per_row": Workload.pairs_per_row}
    return {"duplicates": run.workload.duplicates, "pairs_per_row": run.workload.pairs_per_row}
