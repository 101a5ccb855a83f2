"""`dask-dedup evaluate`: what it prints, writes, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dask_dedup.cli.commands import main


def invoke(*arguments: object):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.fixture
def data(tmp_path, write_dataset) -> Path:
    rng = np.random.default_rng(0)
    images = np.repeat(rng.normal(size=(60, 8)), 5, axis=0) + rng.normal(size=(300, 8)) / 4
    texts = images + rng.normal(size=images.shape) / 4
    return write_dataset(
        tmp_path / "data", np.split(images.astype("f4"), [77]), texts=np.split(texts, [77])
    )


@pytest.fixture
def space(data, tmp_path) -> tuple[Path, Path]:
    """Class texts and labels for `data`: five classes, every other row for the test."""
    np.save(tmp_path / "classes.npy", np.random.default_rng(1).normal(size=(5, 8)))
    frame = pd.DataFrame({"row": range(300), "class_id": np.arange(300) // 60})
    frame["split"] = np.where(frame["row"] % 2, "test", "train")
    frame.to_parquet(tmp_path / "labels.parquet")
    return tmp_path / "classes.npy", tmp_path / "labels.parquet"


def test_truth_then_components(data, tmp_path):
    out = tmp_path / "t"
    first = invoke("truth", data, out, "--queries", "all", "-k", 3, "--threshold", 0.9)
    assert first.exit_code == 0, first.output
    assert "300 of 300 rows" in first.stdout
    pairs = len(pd.read_parquet(out / "pairs"))
    assert f"{pairs:,} at cosine 0.9 or above" in first.stdout
    written = (out / "summary.json").stat().st_mtime_ns
    assert (
        invoke("truth", data, out, "--queries", "all", "-k", 3, "--threshold", 0.9).exit_code == 0
    )
    assert (out / "summary.json").stat().st_mtime_ns == written

    found = json.loads(invoke("components", out, "--json").stdout)
    assert (found["edges"], found["threshold"]) == (pairs, 0.9)
    higher = invoke("components", out, "--threshold", 0.95)
    assert higher.exit_code == 0
    assert "edges at cosine 0.95 or above" in higher.stdout


def test_components_of_a_forest_are_reported_as_such(tmp_path):
    frame = pd.DataFrame({"src": [0, 1, 1], "dst": [3, 3, 2], "similarity": [0.99, 0.98, 0.97]})
    frame.to_parquet(tmp_path / "forest.parquet")
    found = invoke("components", tmp_path / "forest.parquet", "--threshold", 0.95)
    assert "misses 1 union" in found.stdout
    assert "these edges hold no cycle" in found.stderr
    pd.concat([frame, pd.DataFrame({"src": [0], "dst": [1], "similarity": [0.96]})]).to_parquet(
        tmp_path / "all.parquet"
    )
    found = invoke("components", tmp_path / "all.parquet", "--threshold", 0.95)
    assert "no cycle" not in found.stderr


def test_pareto_writes_table_and_plot_and_prints_the_front(data, tmp_path):
    (tmp_path / "c.toml").write_text(
        '[pareto]\nfactories = ["PQ{M}", "Flat"]\nm = [2]\nks = [1, 3]'
    )
    out = tmp_path / "p"
    done = invoke("pareto", data, out, "--config", tmp_path / "c.toml", "--models", "raw pca:4",
                  "--queries", 50, "--repeats", 1)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "4 searches" in done.stdout
    assert "recall@3" in done.stdout
    frame = pd.read_csv(out / "pareto.csv")
    assert frame[["model", "factory"]].to_numpy().tolist() == [
        ["raw", "PQ2"], ["raw", "Flat"], ["pca-4", "PQ2"], ["pca-4", "Flat"],
    ]  # fmt: skip
    assert (out / "pareto.png").stat().st_size > 10_000


def test_zeroshot_and_retrieval_print_and_write(data, space, tmp_path):
    classes, labels = space
    options = ["--filter", "split=test", "--factories", "PQ2x4", "--out", tmp_path / "z", "--json"]
    done = invoke("zeroshot", data, classes, labels, *options)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(row["factory"], row["rows"]) for row in rows] == [("", 150), ("PQ2x4", 150)]
    assert json.loads((tmp_path / "z" / "zeroshot.json").read_text()) == rows
    assert len(pd.read_csv(tmp_path / "z" / "zeroshot.csv")) == 2

    done = invoke("retrieval", data, "--table", labels, "--filter", "split=test", "--json")
    assert [row["pairs"] for row in json.loads(done.stdout)] == [150, 150]
    shown = invoke("retrieval", data, "--rows", 40)
    assert shown.exit_code == 0
    assert "image → text" in shown.stdout
    assert "40" in shown.stdout


REFUSED = {
    "data set": (["truth", "nowhere", "out"], "nowhere: no such folder"),
    "queries": (["truth", "{data}", "out", "--queries", "many"], "a number of rows or all, got 'm"),
    "k": (["truth", "{data}", "out", "-k", "-1"], "k: expected 0 to 4096, got -1"),
    "foreign out": (["truth", "{data}", "{data}"], "holds files of something else"),
    "model": (["pareto", "{data}", "out", "--models", "x"], "expected raw, pca:DIM, mse:DIM"),
    "factory": (["pareto", "{data}", "out", "--factories", "x"], "factory 'x': faiss cannot make"),
    "config": (["pareto", "{data}", "out", "--config", "gone"], "gone: cannot be read"),
    "key": (["pareto", "{data}", "out", "--config", "{toml}"], "unknown setting nprobes; known"),
    "repeats": (
        ["pareto", "{data}", "out", "--repeats", "0"],
        "settings: repeats: Input should be",
    ),
    "edges": (["components", "{data}"], "expected the output of `dask-dedup evaluate truth"),
    "classes": (["zeroshot", "{data}", "gone.npy", "{labels}"], "gone.npy: cannot be read"),
    "labels": (["zeroshot", "{data}", "{classes}", "{data}"], "cannot be read as parquet"),
    "filter": (["retrieval", "{data}", "--filter", "a=b"], "filter: needs --table"),
    "codec": (
        ["zeroshot", "{data}", "{classes}", "{labels}", "--factories", "HNSW8"],
        "cannot encode and decode rows",
    ),
    "out": (["retrieval", "{data}", "--out", "{data}"], "holds files of something else"),
}


@pytest.mark.parametrize("situation", REFUSED)
def test_wrong_input_is_one_line_and_exit_code_2(situation, data, space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text("[pareto]\nnprobes = [1]\n")
    paths = {"data": data, "classes": space[0], "labels": space[1], "toml": "bad.toml"}
    arguments, message = REFUSED[situation]
    result = invoke(*(a.format(**paths) for a in arguments))
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("dask-dedup: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr
    assert not list(Path().glob("out/*.csv"))
