"""Plans scaled by a finished run."""

import json
from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup import Settings
from dask_dedup.cli import commands as cli
from dask_dedup.errors import SettingsError
from dask_dedup.planning.cost_model import plan
from dask_dedup.planning.scaled_plan import read_run, scale_plan
from dask_dedup.planning.workload import Machine, Rates
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


#: The stages that a run measures, each with those before it that it measures together with it.
TOGETHER: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("fit", "layout", "join", "forest", "clusters", "report"), ()),
    "witnesses": ("labels", "compare", "groups"),
}


@pytest.fixture(scope="module")
def finished(clipart, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    settings = Settings.model_validate({"compute": {"workers": 3}, "cells": {"cells_per_row": 3.0}})
    return out, run_here(clipart, out, settings)


def test_read_run_returns_what_the_run_had(finished):
    out, summary = finished
    run = read_run(out)
    assert (run.workload.rows, run.workload.dim, run.workload.item_bytes) == (10_248, 512, 2)
    assert run.machine == Machine(3, 1)
    assert run.workload.cells == summary["found"]["cells"]
    assert run.workload.entries == pytest.approx(summary["found"]["entries"])
    assert run.workload.edges == pytest.approx(summary["duplicates"])
    assert sum(run.seconds.values()) <= summary["wall_seconds"]


def test_read_run_takes_the_share_of_all_rows(finished, tmp_path):
    """`duplicate_fraction` leaves invalid rows out; a plan's share is of all rows."""
    out, summary = finished
    (tmp_path / "settings.toml").write_text((out / "settings.toml").read_text())
    half = {"rows": 2000, "invalid_rows": 1000, "duplicates": 500, "duplicate_fraction": 0.5}
    (tmp_path / "summary.json").write_text(json.dumps(dict(summary) | half))
    assert read_run(tmp_path).workload.edges == pytest.approx(500)


def test_scale_plan_gives_the_run_its_own_times_back_and_keeps_the_model_s_growth(finished):
    run, rates = read_run(finished[0]), Rates()
    for workers in (3, 6):
        planned = plan(run.workload, Machine(workers), rates)
        same = plan(run.workload, run.machine, rates)
        scaled = scale_plan(planned, run, rates)
        assert [stage.memory_bytes for stage in scaled.stages] == [
            stage.memory_bytes for stage in planned.stages
        ]
        for name, several in TOGETHER.items():
            before, own, after = (
                sum(stage.seconds for stage in one.stages if stage.name in (name, *several))
                for one in (planned, same, scaled)
            )
            if several:  # not all of them grow alike, but each by the same factor
                for one, other in zip(scaled.stages, planned.stages, strict=True):
                    if one.name in (name, *several):
                        assert one.seconds == pytest.approx(other.seconds * run.seconds[name] / own)
                continue
            assert after == pytest.approx(run.seconds[name] * before / own)


def test_scale_plan_leaves_a_stage_that_the_run_did_not_have(finished):
    run, rates = read_run(finished[0]), Rates()
    ordered = plan(replace(run.workload, is_ranked=True), run.machine, rates)
    scaled = {stage.name: stage for stage in scale_plan(ordered, run, rates).stages}
    before = {stage.name: stage for stage in ordered.stages}
    assert scaled["rank"].seconds == before["rank"].seconds > 0
    assert scaled["layout"].seconds != before["layout"].seconds


def test_plan_command_takes_a_run(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = ["plan", "--rows", "1e7", "--dim", "512", "--cores", "3", "--json", "--like"]
    result = CliRunner().invoke(cli.main, [*command, str(finished[0])], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["workload"]["duplicates"] == finished[1]["duplicate_fraction"]
    assert str(finished[0]) in report["rates"]


@pytest.mark.parametrize(
    "change",
    [
        lambda summary: None,
        lambda summary: {},
        lambda summary: {key: value for key, value in summary.items() if key != "dim"},
        lambda summary: dict(summary) | {"found": 3},
    ],
)
def test_read_run_refuses_what_is_no_finished_run(finished, tmp_path, change):
    out, summary = finished
    (tmp_path / "settings.toml").write_text((out / "settings.toml").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(change(summary)))
    with pytest.raises(SettingsError, match=str(tmp_path)):
        read_run(tmp_path)
