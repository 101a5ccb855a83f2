"""`dask-dedup sweep`: which files it writes, and which it leaves alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup.cli.commands import main
from dask_dedup.runtime.executor import compute_tasks


@pytest.fixture(scope="module")
def out(tmp_path_factory, write_dataset):
    rows = np.random.default_rng(3).normal(size=(60, 8)).astype("f4")
    rows[40:] = rows[:20]
    base = tmp_path_factory.mktemp("sweep")
    data = write_dataset(base / "data", [rows])
    settings = {"cells": 1, "audit_queries": 0, "dim": 8}
    dask_dedup.run(data, base / "out", execute=compute_tasks, **settings)
    return base / "out"


def call(out, *words, code=0):
    done = CliRunner().invoke(main, ["sweep", str(out), *map(str, words)])
    assert done.exit_code == code, done.output
    return done


def test_sweep_replaces_its_own_csv_and_an_empty_file(out, tmp_path):
    (tmp_path / "a.csv").touch()
    call(out, "--csv", tmp_path / "a.csv")
    first = pd.read_csv(tmp_path / "a.csv")
    assert first["duplicates"].max() == 20
    call(out, "--csv", tmp_path / "a.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), first)


@pytest.mark.parametrize("content", ["label,similarity\nyes,0.9\n", "threshold,duplicates", None])
def test_sweep_refuses_to_replace_another_file(out, tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.mkdir() if content is None else path.write_text(content)
    done = call(out, "--csv", path, code=2)
    assert f"{path}: is there already, and is no CSV of a sweep" in done.stderr
    assert content is None or path.read_text() == content


def test_sweep_of_pairs_without_a_plot_is_refused(out, tmp_path):
    done = call(out, "--pairs", tmp_path / "pairs.csv", code=2)
    assert "--pairs: draws the precision into the picture of --plot" in done.stderr
