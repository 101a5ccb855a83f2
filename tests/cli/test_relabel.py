"""`dask-dedup keep`: its rules, and what it prints of rows that go without a witness."""

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
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(20, 16)), 3, axis=0).astype("f4")
    metadata = pd.DataFrame(
        {
            "url": [f"http://x/{i}" for i in range(60)],
            "caption": [str(i) for i in range(60)],
            "size": np.arange(60) % 7,
        }
    )
    data = write_dataset(folder / "data", [rows], [metadata])
    options = {"cells": 1, "audit_queries": 0, "execute": compute_tasks}
    dask_dedup.run(data, folder / "out", **options)
    return folder / "out"


def invoke(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_keep_writes_and_prints_what_the_rules_did(out, tmp_path):
    path = tmp_path / "decisions.csv"
    path.write_text("row_id,decision\n0,drop\n1,drop\n2,drop\n3,keep\n")
    dest = tmp_path / "dest"
    options = ["--keep", "size desc", "--protect", "size = 0", "--merge", "caption=distinct"]
    result = invoke("keep", out, dest, *options, "--decisions", path, "--workers", 1)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "by decision 3 by decision; no row like it stays" in words
    assert "decisions 4 1 keep, 3 drop, 0 not-duplicates" in words
    assert "protected 9 rows" in words
    found = pd.read_parquet(dest / "clusters")
    assert not found["is_kept"][:3].any() and found["is_kept"][3]
    assert found["is_kept"][found["size"] == 0][1:].all()
    assert (dest / "decisions.csv").read_bytes() == path.read_bytes()
    shown = invoke("show", dest, "--row", 7)
    assert shown.exit_code == 0 and "row 7: protected: size = 0" in shown.output
    shown = invoke("show", dest, "--row", 1)
    assert shown.exit_code == 0 and "row 1: dropped by decision" in shown.output


def test_keep_refuses_in_one_line_and_writes_nothing(out, tmp_path):
    for options, words in [
        (["--keep", "sise desc"], "Did you mean size?"),
        (["--protect", "size"], "expected a condition"),
        (["--merge", "caption"], "expected COLUMN=WAY"),
        (["--merge", "caption=most"], "--merge caption: "),
        (["--decisions", tmp_path / "none.csv"], "cannot be read"),
        (["--max-per-cluster", -1], "--max-per-cluster: "),
    ]:
        result = invoke("keep", out, tmp_path / "dest", *options)
        assert result.exit_code == 2 and words in result.output, result.output
        assert len(result.output.strip().split("\n")) == 1
        assert not (tmp_path / "dest").exists()


def test_keep_help_says_what_counts_apart():
    text = " ".join(invoke("keep", "--help").output.split())
    for words in ("--max-per-cluster", "dropped_by_cap", "nulls last", "not-duplicates"):
        assert words in text
