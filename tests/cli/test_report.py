"""`dask-dedup report`: the page as a process writes it, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup.cli.commands import main
from dask_dedup.results.pair_sample import sample_pairs, write_pairs
from dask_dedup.runtime.executor import compute_tasks


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, write_dataset):
    base = tmp_path_factory.mktemp("report")
    rows = np.repeat(np.random.default_rng(0).normal(size=(20, 8)), 3, axis=0).astype("f4")
    data = write_dataset(base / "data", [rows[:25], rows[25:]])
    dask_dedup.run(data, base / "out", cells=1, audit_queries=9, execute=compute_tasks)
    return base / "out"


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dask_dedup", "report", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_report_writes_a_page_and_says_where(small_run, tmp_path):
    done = command(small_run, tmp_path / "a.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"page: {tmp_path / 'a.html'}\n"
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert command(small_run, tmp_path / "b", "--quiet").stdout == ""
    assert (tmp_path / "b" / "index.html").read_text() == (tmp_path / "a.html").read_text()


def test_report_refuses_in_one_line(small_run, tmp_path):
    for arguments, message in (
        ((tmp_path,), "holds no run"),
        ((small_run, tmp_path / "p", "--images", "{none}.jpg"), "there is no column 'none'"),
        ((small_run, tmp_path / "p", "--thumbnails", "9"), "there are no local pictures"),
        ((small_run, tmp_path / "p", "--thumbnails", "-2"), "thumbnails"),
        ((small_run, tmp_path / "p", "--precision", tmp_path / "q.csv"), "q.csv: no such file"),
    ):
        done = CliRunner().invoke(main, ["report", *map(str, arguments)])
        assert (done.exit_code, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert message in line
    assert not (tmp_path / "p").exists()


def test_report_draws_the_precision_of_labelled_pairs(small_run, tmp_path):
    pairs = sample_pairs(small_run, 40)
    pairs["label"] = "yes"
    write_pairs(pairs, tmp_path / "pairs.csv")
    done = command(small_run, tmp_path / "a.html", "--precision", tmp_path / "pairs.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert "by 40 labelled pairs, with its 95 % interval" in (tmp_path / "a.html").read_text()
