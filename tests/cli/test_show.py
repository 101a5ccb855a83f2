"""`dask-dedup show`: rows 15 degrees apart are a chain, of which the ends are unlike each other."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup.cli.commands import main
from dask_dedup.runtime.executor import compute_tasks

#: A chain, whose weakest link is its second; two copies; one alone; one invalid.
DEGREES = [0, 15, 32, 47, 200, 200, 300, np.nan]
HOSTILE = "\x1b[2Jred [bold]all[/bold]\nnext :smile:"
COSINES = [np.cos(np.radians(step)) for step in (15, 17)]


@pytest.fixture(scope="module")
def out(tmp_path_factory, write_dataset):
    angles = np.radians(DEGREES)
    rows = np.column_stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles])
    urls = [f"https://example.org/{'long/' * 20}{i % 7}.jpg?\x1b" for i in range(8)]
    metadata = pd.DataFrame({"url": urls, "caption": [HOSTILE, None] * 4, "size": range(8)})
    base = tmp_path_factory.mktemp("show")
    data = write_dataset(
        base / "data", np.split(rows.astype("f4"), [5]), [metadata[:5], metadata[5:]]
    )
    settings = {"cells": 1, "audit_queries": 0, "dim": 2, "linkage": "components"}
    dask_dedup.run(data, base / "out", execute=compute_tasks, **settings)
    return base / "out"


def call(out, *words, code=0):
    done = CliRunner().invoke(main, ["show", str(out), *map(str, words)], env={"COLUMNS": "250"})
    assert done.exit_code == code, done.output
    assert not {"\x1b", "\r"} & set(done.output)
    return done


def test_show_a_row_has_its_cluster_and_the_path_to_the_one_that_stays(out):
    lines = call(out, "--row", 3).stdout.splitlines()
    assert lines[0] == "cluster 0: 4 rows, 1 stays"
    table = [line.split() for line in lines[2:6]]
    cosines = [np.cos(np.radians(angle)) for angle in (0, 15, 32, 47)]
    for i, (words, cosine) in enumerate(zip(table, cosines, strict=True)):
        words = words[1:] if i == 3 else words
        assert words[0] == str(i)
        assert f"{cosine:.4f}" in words
    assert table[0][1] == "stays"
    assert table[1][1:4] == ["goes", "for", "0"]
    assert table[3][:2] == ["→", "3"]
    assert f"3 pairs, weakest {COSINES[1]:.4f}" in lines[5]
    assert "its pair" in lines[3]
    asked = lines.index(f"row 3: {cosines[3]:.4f} similar to row 0, which stays")
    assert lines[asked + 1 : asked + 4] == [
        f"  3 – 2  {COSINES[0]:.4f}",
        f"  2 – 1  {COSINES[1]:.4f}  the weakest",
        f"  1 – 0  {COSINES[0]:.4f}",
    ]


def test_show_prints_hostile_text_as_text_and_shortens_urls(out):
    lines = call(out, "--cluster", 0).stdout.splitlines()
    assert r"\x1b[2Jred [bold]all[/bold] next :smile:" in lines[2]
    assert "example.org/long/lon…" in lines[2]
    assert r"0.jpg?\x1b" in lines[2]
    assert lines[3].rstrip().endswith("–")  # no caption


def test_show_a_url_shows_every_row_that_has_it(out):
    url = f"https://example.org/{'long/' * 20}0.jpg?\x1b"
    report = json.loads(call(out, "--url", url, "--json").stdout)
    asked = [
        (group["cluster_id"], one["row_id"])
        for group in report["clusters"]
        for one in group["members"]
        if one["is_asked"]
    ]
    assert asked == [(0, 0), (7, 7)]
    assert "row 7: no usable embedding" in call(out, "--url", url).stdout


def test_show_json_has_all_columns_and_paths(out):
    report = json.loads(call(out, "--cluster", 0, "--limit", 2, "--json").stdout)
    assert report["out"] == str(out)
    (group,) = report["clusters"]
    assert (group["cluster_size"], group["kept"]) == (4, 1)
    first, second = group["members"]
    assert first["metadata"]["caption"] == HOSTILE
    assert first["metadata"]["size"] == 0
    assert second["metadata"]["caption"] is None
    assert second["witness_row_id"] == 0
    assert second["similarity"] == pytest.approx(COSINES[0], abs=1e-6)
    assert [edge["to_row"] for edge in second["path"]] == [0]
    assert report["path"] is None


def test_show_limit_says_how_many_are_shown(out):
    lines = call(out, "--cluster", 0, "--limit", 2).stdout.splitlines()
    assert lines[0] == "cluster 0: 4 rows, 1 stays; 2 shown"


def test_show_path_of_rows_of_one_cluster_of_two_and_of_one_row(out):
    shown = call(out, "--row", 0, "--path", 3).stdout
    assert (
        f"rows 0 and 3: 3 pairs, the weakest {COSINES[1]:.4f}: in one cluster at thresholds up to "
        f"there (this run: 0.95)"
    ) in shown
    shown = call(out, "--row", 0, "--path", 4).stdout
    assert (
        "rows 0 and 4: no chain of pairs joins them at 0.95, from which on was searched, or above"
    ) in shown
    assert "rows 6 and 6: the same row" in call(out, "--row", 6, "--path", 6).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one of row, url and cluster, got"),
        (["--row", 1, "--cluster", 0], "expected one of row, url and cluster, got"),
        (["--row", 8], "row 8: expected a number from 0 to 7."),
        (["--cluster", 1], "cluster 1: there is none; the row of this number is in cluster 0."),
        (["--url", "x\x1b"], r"url x\x1b: no row has it."),
        (["--row", 1, "--path", 99], "row 99: expected a number from 0 to 7."),
        (["--row", "x"], "'x' is not a valid integer"),
        (["--row", 1, "--limit", 0], "0 is not in the range x>=1"),
    ],
)
def test_show_wrong_input_is_one_line_and_exit_code_2(out, words, message):
    done = call(out, *words, code=2)
    assert message in done.stderr
    assert done.stdout == ""


def test_show_what_is_no_run_is_refused(tmp_path):
    done = call(tmp_path, "--row", 0, code=2)
    assert done.stderr.startswith(f"dask-dedup: {tmp_path}: holds no run")
