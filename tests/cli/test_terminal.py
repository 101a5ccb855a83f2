"""Terminals that lack characters, and signals; the real command."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import psutil
import pytest

from dask_dedup.cli.terminal import show_on_any_terminal


@pytest.fixture
def small(write_dataset, tmp_path):
    """A data set of 60 rows: a pair, a group of four and single rows."""
    rows = np.random.default_rng(7).normal(size=(60, 16)).astype(np.float32)
    rows[1], rows[11], rows[12], rows[13] = rows[0], rows[10], rows[10], rows[10]
    return write_dataset(tmp_path / "data", [rows[:30], rows[30:]])


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dask_dedup", *map(str, arguments)]


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("iso-8859-1", "3-4 # -> >= 1.5 \xd7 2... caf\xe9 \\udce9"),
        ("ascii", "3-4 # -> >= 1.5 x 2... caf\\xe9 \\udce9"),
        ("utf-8", "3–4 █ → ≥ 1.5 × 2… café \\udce9"),
    ],
)
def test_show_on_any_terminal_prints_plainer_characters(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with redirect_stdout(stream):
        show_on_any_terminal()
    print("3–4 █ → ≥ 1.5 × 2… café \udce9", end="", file=stream, flush=True)
    assert stream.buffer.getvalue().decode(encoding) == shown


def test_run_on_a_latin_1_terminal_shows_bars_of_what_it_has(small, tmp_path, scheduler):
    environment = {**os.environ, "PYTHONIOENCODING": "iso-8859-1"}
    ran = subprocess.run(
        command("run", small, tmp_path / "out", "--cluster", scheduler),
        env=environment, check=False, capture_output=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.decode("iso-8859-1").splitlines()
    bars = [line.split() for line in lines if line.rstrip().endswith("#")]
    assert [bar[:3] for bar in bars] == [["1", "54", "54"], ["2", "1", "2"], ["3-4", "1", "4"]]
    assert bars[0][3] == "#" * 30


def test_sigterm_ends_as_ctrl_c_does_with_its_line_and_the_same_command_continues(small, tmp_path):
    out = tmp_path / "out"
    arguments = command("run", small, out, "--workers", 1)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not (out / "stages").exists() and process.poll() is None:
        time.sleep(0.01)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + 15, said
    assert said.endswith("\nterminated; the same command continues where this stopped\n")
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert (out / "run.json").exists()
    again = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    sizes = pd.read_parquet(out / "clusters")["cluster_size"].value_counts()
    assert sizes.to_dict() == {1: 54, 4: 4, 2: 2}


def test_seconds_so_far_are_those_of_the_process_once_it_is_the_commands_own():
    script = (
        "import os, time, psutil\n"
        "from dask_dedup.cli.terminal import note_start, seconds_so_far\n"
        "time.sleep(0.3)\n"
        "note_start()\n"
        "inside = seconds_so_far()\n"
        "note_start(is_process=True)\n"
        "note_start()\n"  # of the command in it
        "whole = time.time() - psutil.Process().create_time()\n"
        "print(inside < 0.2, abs(seconds_so_far() - whole) < 0.1, whole > 0.3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True True True\n"
