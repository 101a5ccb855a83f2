import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dask_dedup.cli.commands import main
from dask_dedup.errors import SettingsError
from dask_dedup.evaluate.evaluation_settings import read_toml
from dask_dedup.evaluate.paper import load_paper

SHIPPED = Path(__file__).parent.parent.parent / "examples" / "paper" / "paper.toml"

SMALL = """
[pareto]
models = ["raw", "pca:4"]
factories = ["PQ{M}x4", "Flat"]
m = [2]
ks = [1, 3]
queries = 40
repeats = 1
[components]
threshold = 0.9
[duplicates]
threshold = 0.9
candidates = 5
[zeroshot]
classes = "classes.npy"
filters = ["split=test"]
[retrieval]
table = "labels.parquet"
factories = ["PQ2x4"]
"""


@pytest.fixture
def data(tmp_path, write_dataset):
    rng = np.random.default_rng(0)
    images = np.repeat(rng.normal(size=(60, 8)), 5, axis=0) + rng.normal(size=(300, 8)) / 8
    texts = images + rng.normal(size=images.shape) / 4
    folder = write_dataset(tmp_path / "data", [images], texts=[texts])
    np.save(folder / "classes.npy", rng.normal(size=(5, 8)))
    frame = pd.DataFrame({"row": range(300), "class_id": np.arange(300) // 60})
    frame["split"] = np.where(frame["row"] % 2, "test", "train")
    frame[frame["row"] < 200].to_parquet(folder / "labels.parquet")
    return folder


def paper(*arguments):
    return CliRunner().invoke(main, ["evaluate", "paper", *map(str, arguments)])


def test_shipped_configuration_names_what_the_paper_compares():
    settings = load_paper(read_toml(SHIPPED), "paper.toml")
    kinds = {model.split(":")[0] for model in settings.pareto.models}
    assert kinds == {"raw", "pca", "mse", "snip"}
    assert any("OPQ" in factory for factory in settings.pareto.factories)
    assert any("HNSW" in factory for factory in settings.pareto.factories)
    assert settings.zeroshot is not None
    assert settings.retrieval is not None
    assert settings.components is not None
    assert settings.duplicates is not None


def test_paper_makes_everything_and_again_nothing(data, tmp_path):
    (tmp_path / "c.toml").write_text(SMALL)
    out = tmp_path / "out"
    done = paper(data, out, "--config", tmp_path / "c.toml")
    assert done.exit_code == 0, done.output
    page = (out / "index.md").read_text()
    for heading in ("## Searches", "## Components", "## Zero-shot", "## Retrieval, data"):
        assert heading in page
    assert "Not evaluated" not in page
    assert (out / "pareto" / "pareto.png").exists()
    components = json.loads((out / "components.json").read_text())
    assert components["edges"] == len(pd.read_parquet(out / "pairs" / "pairs")) > 0
    assert f"{components['edges']:,} pairs at cosine 0.9" in page
    rows = json.loads((out / "zeroshot" / "zeroshot.json").read_text())
    assert [row["rows"] for row in rows] == [100]
    rows = json.loads((out / "retrieval" / "retrieval.json").read_text())
    assert [row["pairs"] for row in rows] == [200] * 4
    for row in rows:
        assert f"{100 * row['recall@1']:.1f}" in page

    for finder in ("join", "adc"):
        summary = json.loads((out / "duplicates" / finder / "summary.json").read_text())
        assert f"| {summary['clusters']:,} | {summary['duplicates']:,} |" in page
        assert summary["duplicates"] == components["duplicates"] > 0
    assert (out / "duplicates/join/histogram.png").exists()
    assert (out / "duplicates/join/report/index.html").exists()
    candidates = pd.read_csv(out / "verbatim/candidates/candidates.csv")
    assert len(candidates) == 5
    assert f"| {candidates['k'][0]} | {candidates['row_id'][0]} |" in page

    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.csv")}
    assert len(before) == 6
    assert paper(data, out, "--config", tmp_path / "c.toml").exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.csv")} == before


def test_paper_without_texts_says_what_is_left_out(tmp_path, write_dataset):
    rows = np.random.default_rng(0).normal(size=(50, 8))
    folder = write_dataset(tmp_path / "data", [rows])
    (tmp_path / "c.toml").write_text("[components]\nthreshold = 0.5\n[retrieval]\n")
    done = paper(folder, tmp_path / "out", "--config", tmp_path / "c.toml")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "index.md").read_text()
    assert "Not evaluated: pareto, zeroshot, retrieval, duplicates." in page
    assert "retrieval: not evaluated, for want of text embeddings" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[paretto]\n", "unknown table paretto; known here: pareto, components, zeroshot, retr"),
        ("[pareto]\nmodel = 1\n", "pareto: unknown setting model; known here: models, fac"),
        ("pareto = 1\n", "pareto: expected a table, got 1"),
        ("[components]\nthreshold = 2\n", "components: threshold: Input should be less than"),
        ("[zeroshot]\nrows = 0\n", "zeroshot: rows: Input should be greater than"),
    ],
)
def test_paper_refuses_wrong_configurations(data, tmp_path, content, message):
    (tmp_path / "c.toml").write_text(content)
    done = paper(data, tmp_path / "out", "--config", tmp_path / "c.toml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError):
        load_paper(read_toml(tmp_path / "c.toml"), "c.toml")
