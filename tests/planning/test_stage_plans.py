"""The plans are those of the declared stages, and of what the settings ask for."""

from functools import partial

import pytest

import dask_dedup
from dask_dedup import load_settings, read_dataset
from dask_dedup.pipeline.stages import REPORT, STAGES, stages_of
from dask_dedup.planning.cost_model import plan
from dask_dedup.planning.preflight import describe_dataset, plan_run
from dask_dedup.planning.stage_plans import STAGE_PLANS, plans_of
from dask_dedup.planning.workload import Machine, numbers_workload
from dask_dedup.runtime.executor import compute_tasks

#: What makes a run do everything that ``[keep]`` can ask for.
ALL_OF_KEEP = {
    "keep.order": "length(caption) desc",
    "keep.max_per_cluster": 2,
    "keep.merge": "caption=distinct",
}


def planned_names(rows=10**5, parts=10, *, packed_rows=0, **settings):
    work = numbers_workload(
        load_settings(overrides=settings),
        rows=rows,
        dim=128,
        dtype="float16",
        parts=parts,
        packed_rows=packed_rows,
    )
    return [stage.name for stage in plan(work, Machine(2)).stages]


def test_every_declared_stage_has_a_plan_in_the_same_order():
    assert list(STAGE_PLANS) == [stage.name for stage in (*STAGES, REPORT)]


@pytest.mark.parametrize("finder", ["join", "adc"])
def test_a_finder_has_the_plans_of_its_stages(finder):
    work = numbers_workload(
        load_settings(overrides={"finder": finder}), rows=1e5, dim=128, dtype="float16", parts=3
    )
    assert list(plans_of(work)) == [stage.name for stage in (*stages_of(finder), REPORT)]


@pytest.mark.parametrize("finder", ["join", "adc"])
def test_a_run_with_everything_has_a_line_for_every_stage(finder):
    names = planned_names(
        64**2 * 2 * 10**6,
        64**2 * 2,
        packed_rows=10**6,
        finder=finder,
        **ALL_OF_KEEP,
        **{"keep.decisions": "decisions.csv"},
    )
    declared = [stage.name for stage in (*stages_of(finder), REPORT)]
    assert [name for name in declared if name != "merge-3"] == names  # 64^3 spans and more


def test_a_plain_run_has_no_line_for_what_it_does_not_do():
    optional = {stage.name for stage in STAGES if stage.is_optional}
    assert optional & set(planned_names()) == {"groups"}
    shared = {"forest", "labels", "compare", "witnesses", "clusters", "report"}
    assert shared <= set(planned_names()) and shared <= set(planned_names(finder="adc"))


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ({"keep.order": "first"}, {"values", "rank"}),
        ({"keep.protect": "true"}, {"values", "rank"}),
        ({"keep.max_per_cluster": 1}, {"values", "rank", "place", "settle"}),
        ({"keep.merge": "caption=distinct"}, {"carry"}),
        ({"keep.decisions": "d.csv"}, {"decide", "values", "rank", "place", "settle"}),
    ],
)
def test_what_keep_asks_for_is_added(settings, added):
    assert set(planned_names(**settings)) - set(planned_names()) == added
    assert set(planned_names()) <= set(planned_names(**settings))


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"report.page": False}, {"report"}),
        ({"clusters.linkage": "components"}, {"groups"}),
        ({"finder": "adc", "adc.tolerance": 1.0}, {"tolerance"}),
        ({"finder": "adc", "adc.verify": False}, {"groups"}),
    ],
)
def test_what_is_switched_off_is_left_out(settings, missing):
    with_it = {"finder": settings.get("finder", "join")}
    assert set(planned_names(**with_it)) - set(planned_names(**settings)) == missing


@pytest.mark.parametrize("finder", ["join", "adc"])
def test_a_real_run_has_the_stages_of_its_plan(finder, photos, tmp_path):
    """Photos: 1,600 real rows in four small files."""
    settings = load_settings(overrides={**ALL_OF_KEEP, "finder": finder})
    planned = plan_run(describe_dataset(read_dataset(photos)), settings)
    run = partial(dask_dedup.run, execute=compute_tasks)
    summary = run(photos, tmp_path / "out", settings, keep_stages=True)
    folders = {folder.name for folder in (tmp_path / "out" / "stages").iterdir()} - {"plan.json"}
    names = [stage.name for stage in planned.stages]
    of_plan = {stage.folder for stage in STAGES if stage.name in names}
    assert folders == of_plan
    shown = [stage["name"] for stage in summary["stages"]]
    assert shown == [name for name in names if name in shown] and shown[-1] == "report"
