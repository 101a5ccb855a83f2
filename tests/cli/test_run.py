"""The command: what it prints, where, and with which exit code; interrupted and resumed."""

from __future__ import annotations

import io
import logging
import operator
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import version
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
from dask_dedup.cli.group import chosen_settings, configure_logging
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.settings.option_names import OPTIONS, settings_from
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


# --- without a run --------------------------------------------------------------------------------


def test_help_names_every_option_and_its_default():
    result = CliRunner().invoke(cli.main, ["run", "--help"], terminal_width=200)
    assert result.exit_code == 0
    options = [
        option
        for param in cli.main.commands["run"].params
        for option in param.opts
        if option[:1] == "-"
    ]
    assert {"--threshold", "--memory", "--work", "--cluster", "--break-lock"} <= set(options)
    assert [option for option in options if option not in result.output] == []
    for text in ("[default: 0.95]", "[default: one per core]", "130 interrupted", "-h, --help"):
        assert text in result.output
    assert "[default: 4.5, above a million rows more" in " ".join(result.output.split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_of_the_group_names_the_command(arguments):
    result = CliRunner().invoke(cli.main, arguments)
    assert "run find the duplicates of a data set" in " ".join(result.output.split())


def test_version_is_that_of_the_package_by_the_real_command():
    done = command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"dask-dedup, version {version('dask_dedup')}\n"


def asked(data: Path, *arguments: str) -> SimpleNamespace:
    """Return what the command would run with: its own parser, and its own reading of settings."""
    given = cli.main.commands["run"].make_context("run", [str(data), "out", *arguments]).params
    names = ("dataset", "out", "config", "overwrite", "break_lock", "keep_stages", "verbose")
    own = {name: given.pop(name) for name in (*names, "quiet")}
    settings = chosen_settings(given, own["config"])
    flags = own["overwrite"], own["break_lock"], own["keep_stages"]
    return SimpleNamespace(**{**own, "settings": settings, "flags": flags})


def test_options_none_given_run_with_the_defaults(tiny):
    received = asked(tiny)
    assert received.settings == Settings()
    assert (received.dataset, received.out) == (tiny, Path("out"))
    assert received.flags == (False, False, False)


@pytest.mark.parametrize(
    ("option", "value", "key", "expected"),
    [
        ("--threshold", "0.7", "clusters.threshold", 0.7),
        ("--search-threshold", "0.6", "join.search_threshold", 0.6),
        ("--cells-per-row", "3.5", "cells.cells_per_row", 3.5),
        ("--cells", "17", "cells.cells", 17),
        ("--dim", "32", "compress.dim", 32),
        ("--finder", "adc", "finder", "adc"),
        ("--model", "m", "adc.model", "m"),
        ("--factory", "SQ8", "adc.factory", "SQ8"),
        ("--nprobe", "5", "adc.nprobe", 5),
        ("--k", "9", "adc.k", 9),
        ("--tolerance", "1.5", "adc.tolerance", 1.5),
        ("--url-column", "link", "read.url_column", "link"),
        ("--caption-column", "alt", "read.caption_column", "alt"),
        ("--audit-queries", "0", "audit.queries", 0),
        ("--seed", "0", "seed", 0),
        ("--workers", "3", "compute.workers", 3),
        ("--threads", "2", "compute.threads", 2),
        ("--memory", "2GiB", "compute.memory", 2 * 1024**3),
    ],
)
def test_options_each_sets_its_setting_and_wins_over_the_file(
    tiny, tmp_path, option, value, key, expected
):
    config = tmp_path / "a.toml"
    config.write_text(
        "seed = 5\n[clusters]\nthreshold = 0.9\n[cells]\ncells_per_row = 2.0\n"
        "[audit]\nqueries = 7\n"
    )
    received = asked(tiny, "--config", str(config), option, value)
    cells = {"cells.cells_per_row": 2.0}
    from_file = {"seed": 5, "clusters.threshold": 0.9, **cells, "audit.queries": 7}
    for name, wanted in {**from_file, key: expected}.items():
        assert operator.attrgetter(name)(received.settings) == wanted


def test_options_verify_or_not_is_one_setting(tiny):
    for arguments, expected in (([], True), (["--verify"], True), (["--no-verify"], False)):
        assert asked(tiny, *arguments).settings.adc.verify is expected


def test_options_flags_are_passed_on(tiny):
    assert asked(tiny, "--overwrite").flags == (True, False, False)
    assert asked(tiny, "--break-lock").flags == (False, True, False)
    assert asked(tiny, "--keep-stages").flags == (False, False, True)


def test_options_are_the_keywords_of_python(tiny):
    """Every keyword is an option of a command, and sets the same."""
    flags = {
        option
        for command in cli.main.commands.values()
        for param in command.params
        for option in param.opts
    }
    assert {f"--{name.replace('_', '-')}" for name in OPTIONS} <= flags
    of_run = {param.name: param.opts[0] for param in cli.main.commands["run"].params}
    for name, key in OPTIONS.items():
        if key.replace(".", "__") in of_run:
            assert of_run[key.replace(".", "__")] == f"--{name.replace('_', '-')}"
    assert asked(tiny, "--threshold", "0.7", "--cells", "3", "--skip-bad-parts").settings == (
        settings_from(None, {"threshold": 0.7, "cells": 3, "skip_bad_parts": True})
    )


@pytest.mark.parametrize(
    ("arguments", "details", "warnings"), [([], 0, 1), (["-v"], 1, 1), (["-q"], 0, 0)]
)
def test_log_level_follows_verbose_and_quiet_and_lines_stay_whole(
    tiny, arguments, details, warnings
):
    shown = io.StringIO()
    received = asked(tiny, *arguments)
    configure_logging(Console(file=shown, width=80), received.verbose, received.quiet)
    logging.getLogger("dask_dedup.somewhere").debug("a detail of %s", "[b]data[/b]")
    logging.getLogger("dask_dedup.somewhere").warning("a warning of :smile: %s", "x" * 200)
    assert shown.getvalue() == (
        details * "a detail of [b]data[/b]\n" + warnings * f"a warning of :smile: {'x' * 200}\n"
    )


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
    assert finished.done.stdout.splitlines()[-1] == f"page: {page}"
    assert page.read_text().startswith("<!doctype html>")
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
    assert done.stdout == finished.done.stdout
    assert {p: p.stat().st_mtime_ns for p in finished.out.rglob("*")} == before


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
