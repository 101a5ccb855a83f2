"""How a run starts: settings by keyword, workers of a Client or new ones, what is said."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import dask_dedup
from dask_dedup import CapacityError, Settings, SettingsError
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.files import read_json, write_json

run_here = partial(dask_dedup.run, execute=compute_tasks)
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of workers that end


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_dataset):
    rng = np.random.default_rng(4)
    values = np.repeat(rng.normal(size=(40, 16)), 3, axis=0) + 0.01 * rng.normal(size=(120, 16))
    return write_dataset(tmp_path_factory.mktemp("start") / "data", [values.astype("f4")])


def settings_of(out):
    return dask_dedup.load_settings(out / "settings.toml")


def test_run_takes_settings_by_keyword_by_dotted_name_and_from_a_file(data, tmp_path):
    (tmp_path / "a.toml").write_text("seed = 5\n[cells]\nprobes = 3.0\n")
    given = Settings.model_validate({"seed": 2, "projection": {"dim": 8}})
    ways = [
        (None, {"seed": 5, "threshold": 0.9}, {}),
        ({"cells.probes": 3, "clusters": {"threshold": 0.9}}, {"seed": 5}, {"cells.probes": 3}),
        (tmp_path / "a.toml", {"threshold": 0.9}, {"cells.probes": 3}),
        (given, {"seed": 5, "threshold": 0.9}, {"projection.dim": 8}),
    ]
    for i, (settings, keywords, others) in enumerate(ways):
        run_here(data, tmp_path / f"{i}", settings, audit_queries=0, **keywords)
        expected = {"seed": 5, "clusters.threshold": 0.9, "audit.queries": 0, **others}
        assert settings_of(tmp_path / f"{i}") == dask_dedup.load_settings(None, expected)


@pytest.mark.parametrize(
    ("settings", "keywords", "message"),
    [
        (None, {"treshold": 0.9}, r"keyword treshold\. Did you mean threshold\? Known are thresh"),
        (None, {"probes": 3}, r"keyword probes\..* by its dotted name through settings"),
        (None, {"threshold": 1.5}, r"clusters\.threshold: .* less than or equal to 1, got 1\.5"),
        ({"cells.probs": 3}, {}, r"unknown setting cells\.probs; .* Did you mean probes\?"),
        ({"seeds": 3}, {}, r"unknown setting seeds; known here: seed"),
        ("no.toml", {}, r"no\.toml: cannot be read"),
    ],
)
def test_run_with_a_wrong_setting_names_it_before_anything_is_done(
    data, tmp_path, settings, keywords, message
):
    with pytest.raises(SettingsError, match=message):
        dask_dedup.run(data, tmp_path / "out", settings, **keywords)
    assert not (tmp_path / "out").exists()


def test_run_says_what_it_does_and_writes_its_plan(data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "dask_dedup")
    said = []
    out = tmp_path / "out"
    run_here(data, out, say=said.append, keep_stages=True)
    assert said[0] == f"{data}: 120 rows in 1 part, dimension 16"
    assert [line.split()[0] for line in said[1:]] == ["plan:", "plan:"]
    planned = json.loads((out / "stages" / "plan.json").read_text())
    content = planned.get("content", planned)
    assert [stage["name"] for stage in content["stages"]][:2] == ["fit", "layout"]
    assert said[0] not in caplog.text
    run_here(data, out)
    assert f"{out}: finished before with these settings; nothing to do" in caplog.text


def test_run_that_does_not_fit_is_refused_for_python_as_for_the_command(data, tmp_path):
    with pytest.raises(CapacityError, match=r"a worker has 400\.0 MB"):
        run_here(data, tmp_path / "out", memory="400MB")
    assert not (tmp_path / "out").exists()


def test_run_uses_the_workers_of_the_current_client(data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "dask_dedup")
    run_here(data, tmp_path / "here")
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit="3GB", processes=False,
        dashboard_address="127.0.0.1:0",
    )  # fmt: skip
    with cluster, Client(cluster):
        # What the settings say of workers is for those that a run starts itself.
        summary = dask_dedup.run(data, tmp_path / "there", workers=7, cluster="tcp://nowhere:1")
    assert (summary["workers"], summary["worker_memory_bytes"]) == (1, 3_000_000_000)
    assert summary["worker_peak_bytes"] > 1e6
    assert "1 worker with 3.0 GB each" in caplog.text
    here, there = (pd.read_parquet(tmp_path / name / "clusters") for name in ("here", "there"))
    pd.testing.assert_frame_equal(here, there)


def test_run_on_a_client_whose_workers_are_too_small_is_refused(data, tmp_path):
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit="200MB", processes=False,
        dashboard_address="127.0.0.1:0",
    )  # fmt: skip
    with cluster, Client(cluster), pytest.raises(CapacityError, match="a worker has 200 MB"):
        dask_dedup.run(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SCRIPT = """
import sys
import dask_dedup
print("this script runs", flush=True)
summary = dask_dedup.run(sys.argv[1], sys.argv[2], workers=1, audit_queries=0)
print(summary["workers"], summary["duplicates"])
"""


@pytest.mark.parametrize("how", ["path", "module"])
def test_run_of_a_script_without_a_guard_runs_the_script_once(data, tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT)
    start = ["script.py"] if how == "path" else ["-m", "script"]
    ran = subprocess.run(
        [sys.executable, *start, str(data), "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "this script runs\n1 80\n"  # groups of three: two of each are duplicates
    assert ran.stderr == ""  # no terminal: nothing is shown


COMMAND = """
import sys
from dask_dedup.__main__ import main
try:
    main()
finally:
    print("loaded:", sorted({"torch", "faiss", "matplotlib.pyplot"} & set(sys.modules)))
"""


def test_run_command_s_own_process_does_without_torch(data, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, "run", str(data), str(tmp_path / "out"), "--workers", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "loaded: []"


def test_run_closes_the_display_that_it_is_given_after_an_error_too(data, tmp_path, stage_notes):
    def fail(tasks, on_result):
        raise InterruptedError

    seen = stage_notes()
    with pytest.raises(InterruptedError):
        dask_dedup.run(data, tmp_path / "out", execute=fail, progress=seen)
    assert (seen.names, seen.is_closed) == (["fit"], True)


AFTER_OTHERS = """
import sys
from multiprocessing import forkserver
if sys.modules["__main__"].__name__ == "__main__" and "--again" not in sys.argv:
    sys.argv.append("--again")  # as workers get it
    forkserver.ensure_running()
import dask_dedup
dask_dedup.run(sys.argv[1], sys.argv[2], workers=1)
"""


def test_run_of_a_script_without_a_guard_after_other_processes_ends_with_one_error(data, tmp_path):
    """The process to fork from is not ours, so Python runs the script again in each worker."""
    (tmp_path / "script.py").write_text(AFTER_OTHERS)
    ran = subprocess.run(
        [sys.executable, "script.py", str(data), "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("dask_dedup.errors.ClusterError: worker processes cannot be started")
    assert last.endswith('put what it does under `if __name__ == "__main__":`.')
    assert "a worker process was made to run this script again" in ran.stderr


def test_run_on_relative_names_is_known_from_any_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(data.parent)
    out = tmp_path / "out"
    run_here(data.name, os.path.relpath(out), audit_queries=0)
    assert json.loads((out / "summary.json").read_text())["dataset"] == str(data)
    state = read_json(out / "run.json", sealed=True)
    assert (state["source"]["path"], state["stages"]) == (str(data), str(out / "stages"))
    monkeypatch.chdir(tmp_path)
    summary = dask_dedup.export("out", "to", execute=compute_tasks)
    assert (summary["dataset"], summary["run"]) == (str(data), str(out))
    again = {"path": data.name, "sketch": state["source"]["sketch"]}  # as runs had it before
    write_json(out / "run.json", {**state, "source": again})
    monkeypatch.chdir(data.parent)
    lines = []
    run_here(data.name, out, audit_queries=0, say=lines.append)
    assert lines[-1] == f"{out}: finished before with these settings; nothing to do"


def test_what_the_plan_expected_is_kept_and_is_not_that_of_another_run(tmp_path, write_dataset):
    rows = np.random.default_rng(1).normal(size=(300, 16)).astype("f4")
    data, out = write_dataset(tmp_path / "data", [rows]), tmp_path / "out"
    own = {"audit_queries": 0, "report": False, "execute": compute_tasks}
    settings = {"cells.cells": 2, "join.search_threshold": 0.9}
    first = dask_dedup.run(data, out, settings, keep_stages=True, **own)
    planned = json.loads((out / "stages" / "plan.json").read_text())
    planned = planned.get("content", planned)["stages"]
    assert first["planned_seconds"] == {one["name"]: round(one["seconds"], 3) for one in planned}
    assert {"fit", "join"} <= set(first["planned_seconds"])
    again = dask_dedup.run(data, out, settings, threshold=0.97, keep_stages=True, **own)
    assert "planned_seconds" not in again  # nothing was searched, and nothing planned
