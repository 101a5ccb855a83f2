"""The command: what it prints, where, and with which exit code; interrupted and resumed."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

import dask_dedup
from dask_dedup import Settings, SettingsError, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.cli.run import print_summary
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.files import read_json

run_here = partial(dask_dedup.run, execute=compute_tasks)

COMMAND = [sys.executable, "-m", "dask_dedup"]
RESULTS = [
    "audit",
    "clusters",
    "forest",
    "histogram.csv",
    "histogram.png",
    "invalid",
    "log.txt",
    "report",
    "results.json",
    "run.json",
    "settings.toml",
    "summary.json",
]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def small(clipart, tmp_path_factory) -> Path:
    """Two of the five parts of the example: 931 rows."""
    folder = tmp_path_factory.mktemp("small")
    for kind, suffix in (("img_emb", "npy"), ("metadata", "parquet")):
        (folder / kind).mkdir()
        for i in (1, 3):
            name = f"{kind}_{i:04d}.{suffix}"
            shutil.copy2(clipart / kind / name, folder / kind / name)
    return folder


@pytest.fixture
def tiny(tmp_path, write_dataset) -> Path:
    return write_dataset(tmp_path / "data", [np.eye(3, 5, dtype=np.float32)])


def test_finished_by_the_library_is_finished_for_the_command_and_names_are_printed_as_they_are(
    tmp_path, write_dataset
):
    data = write_dataset(tmp_path / "[b]da:smile:ta[", [np.eye(3, 5, dtype=np.float32)])
    out = tmp_path / "out [red]"
    with dask.config.set(scheduler="synchronous"):
        run_here(data, out)
    result = CliRunner().invoke(cli.main, ["run", str(data), str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"{data}: 3 rows in 1 part, dimension 5",
        f"{out}: finished before with these settings; nothing to do",
    ]
    assert f"results in {out}: clusters/*.parquet has every row" in result.stdout
    assert os.listdir(out) and ".lock" not in os.listdir(out)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\nok"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\nok"


def test_names_with_control_characters_are_shown_escaped(tmp_path, write_dataset):
    arrays = [np.eye(3, 5, dtype=np.float32)]
    data = write_dataset(tmp_path / f"data{HOSTILE}", arrays)
    out = tmp_path / f"out{HOSTILE}"
    with dask.config.set(scheduler="synchronous"):
        run_here(data, out)
    result = CliRunner().invoke(cli.main, ["run", str(data), str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"data{SHOWN}: 3 rows" in result.stderr
    assert f"results in {tmp_path}/out{SHOWN}: clusters" in result.stdout
    path = data / "metadata" / "metadata_0.parquet"
    pd.DataFrame({HOSTILE: ["u"] * 3}).to_parquet(
        path
    )  # a column's name, in a warning and an error
    log = CliRunner().invoke(cli.main, ["plan", str(data)], catch_exceptions=False)
    error = CliRunner().invoke(cli.main, ["run", str(data), str(out), "--url-column", "link"])
    assert f"the columns are {SHOWN}" in error.stderr
    for printed in (result.output, log.output, error.output):
        assert all(c.isprintable() or c == "\n" for c in printed), printed
        assert "\nok" not in printed


def test_names_with_control_characters_reach_no_real_terminal(tmp_path, write_dataset):
    data = write_dataset(tmp_path / f"data{HOSTILE}", [np.eye(3, 5, dtype=np.float32)])
    (data / "img_emb" / "img_emb_0.npy").write_bytes(b"junk")
    process, terminal = pty.fork()
    if process == 0:
        command = [sys.executable, "-m", "dask_dedup", "run", str(data), str(tmp_path / "out")]
        os.execv(sys.executable, command)
    seen = b""
    with suppress(OSError):  # the other side has gone
        while chunk := os.read(terminal, 4096):
            seen += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 2
    assert SHOWN.encode() in seen
    assert b"\x1b]0;owned" not in seen


def test_paths_that_are_no_utf8_are_refused_at_the_start_in_one_line(
    tmp_path, write_dataset, monkeypatch
):
    data = tmp_path / "donn\udce9es"
    write_dataset(tmp_path / "data", [np.eye(3, 5, dtype=np.float32)]).rename(data)
    named = f"dask-dedup: {tmp_path}/donn\\udce9es: the name is not UTF-8"
    name = str(data)
    for arguments in (["run", name, "out"], ["run", str(tmp_path), name], ["status", name]):
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 2
        assert result.output.startswith(named)
        assert len(result.output.splitlines()) == 1
    monkeypatch.chdir(data)  # where "." is such a name
    result = CliRunner().invoke(cli.main, ["run", ".", str(tmp_path / "out")])
    assert result.output.startswith(named)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="the name is not UTF-8"):
        read_dataset(Path("."))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(data)  # as the error advises
    with dask.config.set(scheduler="synchronous"):
        assert run_here(tmp_path / "link", tmp_path / "out")["rows"] == 3


def test_data_set_in_a_folder_with_brackets_is_found_by_patterns(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data [v1]", [np.eye(3, 5, dtype=np.float32)])
    read = {"metadata": "meta*/*.parquet", "image_embeddings": "**/img_emb_?.npy"}
    settings = Settings.model_validate({"read": read})
    with dask.config.set(scheduler="synchronous"):
        assert run_here(data, tmp_path / "out", settings)["rows"] == 3


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory) -> SimpleNamespace:
    """Run the real command once."""
    out = tmp_path_factory.mktemp("finished") / "out"
    done = command("run", small, out, "--workers", 1, "--audit-queries", 100)
    return SimpleNamespace(data=small, out=out, done=done)


def test_run_succeeds_and_writes_every_result_and_nothing_else(finished):
    assert finished.done.returncode == 0, finished.done.stderr
    assert sorted(os.listdir(finished.out)) == RESULTS
    for folder in ("clusters", "invalid"):
        assert sorted(os.listdir(finished.out / folder)) == [
            "part-00000.parquet",
            "part-00001.parquet",
        ]
    summary = read_json(finished.out / "summary.json")
    assert summary["rows"] == pq.read_table(finished.out / "clusters").num_rows == 931


def test_run_prints_its_course_on_stderr_and_the_summary_on_stdout(finished):
    progress = finished.done.stderr.splitlines()
    progress = [line for line in progress if not line.startswith("compiling")]  # a first run
    assert progress[0] == f"{finished.data}: 931 rows in 2 parts, dimension 512"
    assert [line.split()[0] for line in progress[1:3]] == ["plan:", "plan:"]
    assert progress[3].startswith("1 worker with ")
    assert [line.split()[0] for line in progress[4:]] == [
        "fit",
        "layout",
        "join",
        "forest",
        "witnesses",
        "clusters",
        "report",
        "random",  # pairs: what the embeddings look like
    ]
    summary = read_json(finished.out / "summary.json")
    shown = [line.split() for line in finished.done.stdout.splitlines()]
    assert ["rows", "931"] in shown
    for name in ("duplicates", "dropped", "kept"):
        assert [name, f"{summary[name]:,}"] in [words[:2] for words in shown]
    assert f"results in {finished.out}: " in finished.done.stdout
    page = finished.out / "report" / "index.html"
    assert f"page: {page}" in finished.done.stdout.splitlines()
    assert page.read_text().startswith("<!doctype html>")
    steps = finished.done.stdout.splitlines()[-1]
    assert steps.startswith("without duplicates: ")
    assert steps.endswith(f" export {finished.out} DEST")
    assert "\x1b" not in finished.done.stdout + finished.done.stderr


def test_run_gives_what_the_library_gives(finished, tmp_path):
    settings = Settings(audit={"queries": 100})
    with dask.config.set(scheduler="synchronous"):
        summary = run_here(finished.data, tmp_path / "out", settings)
    ours, theirs = (pq.read_table(out / "clusters") for out in (tmp_path / "out", finished.out))
    assert ours == theirs
    assert pq.read_table(tmp_path / "out" / "forest") == pq.read_table(finished.out / "forest")
    command_summary = read_json(finished.out / "summary.json")
    for key in ("clusters", "duplicates", "largest_cluster", "found"):
        assert command_summary[key] == summary[key]


def test_run_carries_every_column_of_the_metadata(finished):
    dataset = read_dataset(finished.data)
    clusters = pq.read_table(finished.out / "clusters")
    for field in dataset.columns.schema:
        assert clusters.schema.field(field.name).type == field.type
    urls = dataset.metadata["url"].compute(scheduler="synchronous")
    assert clusters["url"].to_pylist() == urls.tolist()


def test_run_again_says_finished_and_does_nothing(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.out.rglob("*")}
    done = command("run", finished.data, finished.out, "--workers", 2, "--audit-queries", 100)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == (
        f"{finished.out}: finished before with these settings; nothing to do"
    )
    texts = [  # the times are those of each command
        re.sub(r"time +[\d.]+ s|all else [\d.]+", "", " ".join(text.split()))
        for text in (done.stdout, finished.done.stdout)
    ]
    assert texts[0] == texts[1]
    assert {p: p.stat().st_mtime_ns for p in finished.out.rglob("*")} == before


def test_no_line_of_a_summary_is_wider_than_a_terminal(finished):
    summary = dict(dask_dedup.open_result(finished.out))
    large = {"rows": 2_086_411_225, "queries_with_pairs": 9_876, "all_united": 9_875}
    audit = {**summary["audit"], **large, "all_united_share": 0.9999, "all_united_low": 0.9991}
    audit |= {"all_united_high": 0.9999, "pair_recall": 0.9999}
    stages = [{"name": name, "seconds": 36_012.3} for name in ("tolerance", "witnesses")]
    summary |= {"audit": audit, "rows": large["rows"], "stages": stages, "dropped_by_decision": 9}
    summary |= {"dropped_by_cap": 90_000, "wall_seconds": 150_000.0}
    summary["linked_through_others"] = {"rows": 94_000_000, "share": 0.395, "lowest": 0.1}
    shown = StringIO()
    print_summary(summary, finished.out, Console(file=shown, width=300))
    head = shown.getvalue().split("results in")[0]
    assert "through others" in head and "by decision; no row" in head and "all else" in head
    assert max(len(line.rstrip()) for line in head.splitlines()) <= 80


def _left_of_group(group: int, timeout_seconds: float = 20) -> list[str]:
    """Return the names of the processes of a group that do not end in time."""
    end = time.monotonic() + timeout_seconds
    while True:
        left = []
        for process in psutil.process_iter(["name", "status"]):
            with suppress(ProcessLookupError):
                ours = os.getpgid(process.pid) == group
                if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                    left.append(process.info["name"])
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def _handle_interrupts() -> None:
    """A shell that runs the tests in the background makes them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_run_interrupted_exits_130_and_the_same_command_completes(clipart, tmp_path):
    out = tmp_path / "out"
    arguments = [
        *COMMAND,
        "run",
        str(clipart),
        str(out),
        "--workers",
        "1",
        "--audit-queries",
        "100",
    ]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_handle_interrupts,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("fit "):  # from here on, the layout is written
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: command and workers
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed == ""
    assert "interrupted; the same command continues where this stopped" in errors
    assert "Traceback" not in errors
    assert not {"clusters", "forest", "invalid", "summary.json", ".lock"} & set(os.listdir(out))

    before = (out / "stages" / "layout" / "trained.json").stat().st_mtime_ns
    assert _left_of_group(process.pid) == []
    done = command(
        "run", clipart, out, "--workers", 1, "--audit-queries", 100, "-q", "--keep-stages"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(os.listdir(out)) == sorted([*RESULTS, "stages"])
    assert (out / "stages" / "layout" / "trained.json").stat().st_mtime_ns == before
    assert read_json(out / "summary.json")["rows"] == 10_248
