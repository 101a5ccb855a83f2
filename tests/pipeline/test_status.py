"""What `status` says of runs that go on, were stopped, or are finished."""

import json
import os
import shutil
import socket
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup import Settings
from dask_dedup.cli import commands as cli
from dask_dedup.errors import OutputError
from dask_dedup.pipeline.status import run_status
from dask_dedup.runtime.executor import NoProgress, compute_tasks
from dask_dedup.storage.folder_lock import FolderLock

run_here = partial(dask_dedup.run, execute=compute_tasks)


def stop_after(tasks):
    """Return an executor that stops the run when so many tasks of stages have left their record."""
    done = 0

    def execute(some, on_result):
        def count(record):
            nonlocal done
            on_result(record)
            if isinstance(record, dict):
                done += 1
                if done == tasks:
                    raise InterruptedError

        return [compute_tasks([one], count)[0] for one in some]

    return execute


def stages_of(status):
    return {
        stage["name"]: (stage["state"], stage["done"], stage["tasks"]) for stage in status["stages"]
    }


@pytest.fixture(scope="module")
def settings():
    return Settings.model_validate({"cells": {"cells": 40}})


class Counts(NoProgress):
    """Adds up the rows of each stage: those of this start, and those of earlier ones."""

    def __init__(self):
        self.rows = {}

    def start(self, stage, rows):
        self.stage = stage
        self.rows[stage] = [0, 0]

    def advance(self, rows):
        self.rows[self.stage][0] += rows

    def skip(self, rows):
        self.rows[self.stage][1] += rows


def test_resumed_stages_have_no_rate_of_rows_that_were_done_before(
    clipart, settings, tmp_path, stage_notes
):
    out = tmp_path / "out"
    with pytest.raises(InterruptedError):
        run_here(clipart, out, settings, progress=stage_notes("clusters"))
    seen = Counts()
    summary = run_here(clipart, out, settings, progress=seen)
    rates = {stage["name"]: stage["rows_per_second"] for stage in summary["stages"]}
    for name in ("fit", "layout", "forest"):
        assert seen.rows[name] == [0, 10_248]
        assert rates[name] is None
    assert seen.rows["join"][0] == 0
    assert seen.rows["clusters"] == [10_248, 0]
    assert rates["clusters"] > 0


def test_a_stage_that_was_stopped_has_the_rate_of_the_rest(clipart, settings, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InterruptedError):
        run_here(clipart, out, settings, execute=stop_after(3))  # of five parts of the layout
    rows = [np.load(path, mmap_mode="r").shape[0] for path in sorted(clipart.rglob("img_emb_*"))]
    seen = Counts()
    summary = run_here(clipart, out, settings, progress=seen)
    assert seen.rows["layout"] == [sum(rows[3:]), sum(rows[:3])]
    (layout,) = (stage for stage in summary["stages"] if stage["name"] == "layout")
    assert layout["rows_per_second"] == pytest.approx(sum(rows[3:]) / layout["seconds"], rel=0.01)


def test_status_of_a_stopped_run_counts_the_tasks_and_goes_on_from_there(
    clipart, settings, tmp_path
):
    out = tmp_path / "out"
    with pytest.raises(InterruptedError):
        run_here(clipart, out, settings, execute=stop_after(3))
    status = run_status(out)
    assert status["state"] == "stopped"
    assert stages_of(status) == {
        "fit": ("finished", 0, None),
        "layout": ("begun", 3, 5),
        "join": ("waiting", 0, None),
        "forest": ("waiting", 0, None),
        "witnesses": ("waiting", 0, None),
        "clusters": ("waiting", 0, None),
    }
    with pytest.raises(InterruptedError):
        run_here(clipart, out, settings, execute=stop_after(2 + 1))
    status = run_status(out)
    assert stages_of(status)["layout"] == ("finished", 5, 5)
    assert stages_of(status)["join"][:2] == ("begun", 1)
    lock = FolderLock(out)
    lock.acquire()
    status = run_status(out)
    assert status["state"] == "running"
    assert (status["holder"]["host"], status["holder"]["pid"]) == (
        socket.gethostname(),
        os.getpid(),
    )
    shown = CliRunner().invoke(cli.main, ["status", str(out)]).stdout
    assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in shown
    lock.release()
    assert run_status(out)["state"] == "stopped"
    run_here(clipart, out, settings)
    status = run_status(out)
    assert status["state"] == "finished"
    assert {state for state, _, _ in stages_of(status).values()} == {"finished"}
    assert status["seconds_left"] == 0


def test_status_command_prints_a_table_or_json_and_changes_nothing(clipart, settings, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InterruptedError):
        run_here(clipart, out, settings, execute=stop_after(7))
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    result = CliRunner().invoke(cli.main, ["status", str(out)], catch_exceptions=False)
    assert "2 of" in result.stdout
    assert "the same command continues" in result.stdout.replace("\n", " ")
    result = CliRunner().invoke(cli.main, ["status", str(out), "--json"])
    assert json.loads(result.stdout) == run_status(out)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))


def test_status_shows_the_stages_of_the_finder_and_optional_ones_once_they_are_there(
    tmp_path, write_dataset, stage_notes
):
    rng = np.random.default_rng(0)
    data = write_dataset(tmp_path / "data", [rng.normal(size=(300, 16)).astype("f4")])
    adc = {"finder": "adc", "adc.factory": "IVF4,PQ4x6", "adc.queries": 50}
    with pytest.raises(InterruptedError):
        run_here(data, tmp_path / "out", adc, progress=stage_notes("shards"))
    assert stages_of(run_status(tmp_path / "out")) == {
        "train": ("finished", 0, None),
        "shards": ("waiting", 0, None),
        "tolerance": ("waiting", 0, None),  # since it is planned
        "search": ("waiting", 0, None),
        "forest": ("waiting", 0, None),
        "witnesses": ("waiting", 0, None),
        "clusters": ("waiting", 0, None),
    }
    with pytest.raises(InterruptedError):
        run_here(data, tmp_path / "out", adc, progress=stage_notes("search"))
    found = stages_of(run_status(tmp_path / "out"))
    assert list(found) == [
        *("train", "shards", "tolerance", "search", "forest", "witnesses", "clusters")
    ]
    assert found["shards"] == ("finished", 1, 1)
    assert found["tolerance"] == ("finished", 0, None)


@pytest.mark.parametrize("content", [None, "{", '"x"', '{"tool": "another"}'])
def test_status_of_a_folder_without_a_run(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(OutputError, match="no run"):
        run_status(tmp_path)
    result = CliRunner().invoke(cli.main, ["status", str(tmp_path)])
    assert result.exit_code == 2


@pytest.fixture(scope="module")
def finished(clipart, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    run_here(clipart, out, settings)
    return out


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]"])
@pytest.mark.parametrize(
    "names", [("summary.json",), ("results.json",), ("results.json", "summary.json")]
)
def test_status_of_a_finished_run_names_the_damaged_notes(finished, tmp_path, names, content):
    out = shutil.copytree(finished, tmp_path / "out")
    for name in names:
        (out / name).unlink()
        if content is not None:
            (out / name).write_bytes(content)
    result = CliRunner().invoke(cli.main, ["status", str(out)], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "finished" in result.stdout and "stopped" not in result.stdout
    for name in names:
        assert f"{out / name}: " in result.stdout
    assert "put the files back, or begin anew (--overwrite)" in result.stdout
    as_json = CliRunner().invoke(cli.main, ["status", str(out), "--json"])
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["damage"]


def test_status_says_that_the_notes_of_a_run_are_damaged(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "run.json").write_bytes((out / "run.json").read_bytes()[:-9])
    with pytest.raises(OutputError, match=r"run\.json is damaged.*Put the file back"):
        run_status(out)
