"""A data set as one file, or as a folder without metadata: the same clusters as by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup.cli.commands import main
from tests.conftest import run_here

OURS = [
    "row_id", "cluster_id", "cluster_size", "is_representative", "is_valid",
    "similarity_to_representative", "is_kept", "witness_row_id", "witness_similarity",
]  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """A row of NaN, and 600 rows of which some are near-copies of others."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(601, 24))
    copies = rng.choice(600, 150, replace=False)
    rows[copies] = rows[rng.integers(0, 600, 150)] + 0.05 * rng.normal(size=(150, 24))
    rows[600] = np.nan
    return rows.astype("f4")


def write(rows: np.ndarray, folder: Path, form: str) -> Path:
    folder.mkdir()
    if form == "npy":
        np.save(folder / "emb.npy", rows)
        return folder / "emb.npy"
    if form == "folder of npy":
        for i, own in enumerate(np.array_split(rows, 3)):
            np.save(folder / f"e{i}.npy", own)
        return folder
    table = {"caption": [f"c{i}" for i in range(len(rows))], "vector": pa.array(rows.tolist())}
    pq.write_table(pa.table(table), folder / "all.parquet")
    return folder / "all.parquet"


def components(rows: np.ndarray, threshold: float) -> np.ndarray:
    """Return the smallest row of each row's component, by brute force."""
    unit = rows.astype("f8")
    unit = np.nan_to_num(unit / np.linalg.norm(unit, axis=1, keepdims=True))
    src, dst = np.nonzero(unit @ unit.T >= threshold)
    links = coo_array((np.ones(len(src)), (src, dst)), shape=(len(rows),) * 2)
    _, labels = connected_components(links, directed=False)
    return np.unique(labels, return_index=True)[1][labels]


@pytest.mark.parametrize("form", ["npy", "folder of npy", "parquet"])
def test_run_on_each_form_finds_the_components_of_brute_force(rows, form, tmp_path):
    data = write(rows, tmp_path / "data", form)
    result = run_here(data, tmp_path / "out")
    clusters = pd.read_parquet(tmp_path / "out" / "clusters")
    wanted = components(rows, 0.95)
    assert 100 < (wanted != np.arange(601)).sum() < 200
    assert clusters["cluster_id"].tolist() == wanted.tolist()
    assert clusters["is_valid"].tolist() == [True] * 600 + [False]
    theirs = ["url", "caption"] if form == "parquet" else []
    assert list(clusters.columns) == [*OURS, *theirs]
    invalid = pd.read_parquet(tmp_path / "out" / "invalid")
    assert invalid[["row_id", "invalid_reason"]].values.tolist() == [[600, "nan"]]
    assert list(result.clusters.columns) == list(clusters.columns[1:])
    assert result.clusters.compute().index.tolist() == list(range(601))


@pytest.mark.parametrize("form", ["npy", "folder of npy", "parquet"])
def test_join_clusters_on_each_form_is_what_run_writes(rows, form, tmp_path):
    data = write(rows, tmp_path / "data", form)
    run_here(data, tmp_path / "out")
    dataset = dask_dedup.read_dataset(data)
    layout = dask_dedup.build_cells(dataset, dask_dedup.fit_pca(dataset, dim=16), tmp_path / "c")
    forest = dask_dedup.spanning_forest(dask_dedup.join_cells(layout, threshold=0.95))
    labels = dask_dedup.label_components(forest, 0.95)
    frame = dask_dedup.join_clusters(dataset, labels, forest, 0.95).compute()
    written = pd.read_parquet(tmp_path / "out" / "clusters")
    assert list(frame.columns) == list(written.columns)
    assert frame["cluster_id"].tolist() == written["cluster_id"].tolist()
    assert frame["is_kept"].tolist() == written["is_kept"].tolist()


def test_export_of_a_parquet_file_is_a_data_set_again(rows, tmp_path):
    result = run_here(write(rows, tmp_path / "data", "parquet"), tmp_path / "out")
    result.export(tmp_path / "clean")
    again = run_here(tmp_path / "clean", tmp_path / "again")
    assert (again["rows"], again["dropped"]) == (result["kept"], 0)


def test_result_without_metadata_can_be_shown_exported_sampled_and_run_again(rows, tmp_path):
    data = write(rows, tmp_path / "data", "folder of npy")
    result = run_here(data, tmp_path / "out")
    clusters = pd.read_parquet(tmp_path / "out" / "clusters")
    large = int(clusters["cluster_id"][clusters["cluster_size"].idxmax()])
    members = result.members(cluster=large)
    assert sorted(members["row_id"]) == clusters.query("cluster_id == @large")["row_id"].tolist()
    with pytest.raises(dask_dedup.InputError, match="the data set has no metadata"):
        result.members(url="http://x")
    ran = CliRunner().invoke(
        main, ["sample", str(tmp_path / "out"), str(tmp_path / "pairs.csv"), "-n", "40"]
    )
    assert ran.exit_code == 0, ran.output
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert len(pairs) == 40
    assert pairs["src_url"].isna().all()

    result.export(tmp_path / "clean")
    kept = clusters["row_id"][clusters["is_kept"]].to_numpy()
    files = sorted((tmp_path / "clean" / "img_emb").iterdir())
    assert [path.name for path in files] == ["e0.npy", "e1.npy", "e2.npy"]
    np.testing.assert_array_equal(np.concatenate([np.load(path) for path in files]), rows[kept])
    weights = pd.read_parquet(tmp_path / "clean" / "metadata")
    assert weights["row_id"].tolist() == kept.tolist()
    again = run_here(tmp_path / "clean", tmp_path / "again")
    assert (again["rows"], again["dropped"]) == (len(kept), 0)


def test_compress_without_metadata_gives_a_data_set_without(rows, tmp_path):
    data = dask_dedup.read_dataset(write(rows, tmp_path / "data", "folder of npy"))
    model = dask_dedup.fit_compressor(data, "pca", dim=8)
    dask_dedup.compress_dataset(data, model, tmp_path / "small")
    small = dask_dedup.read_dataset(tmp_path / "small" / "img_emb")
    assert (small.rows, small.dim) == (601, 8)


def test_run_again_with_another_column_begins_anew(rows, tmp_path):
    path = tmp_path / "two.parquet"
    other = np.roll(rows, 1, axis=0)
    table = {"a": pa.array(rows.tolist()), "b": pa.array(other.tolist())}
    pq.write_table(pa.table(table), path)
    run_here(path, tmp_path / "out", embedding_column="a")
    run_here(path, tmp_path / "out", embedding_column="b")
    clusters = pd.read_parquet(tmp_path / "out" / "clusters")
    assert clusters["cluster_id"].tolist() == components(other, 0.95).tolist()


def test_export_for_img2dataset_without_metadata_says_what_is_missing(rows, tmp_path):
    result = run_here(write(rows[:50], tmp_path / "data", "npy"), tmp_path / "out")
    with pytest.raises(dask_dedup.SettingsError, match=r"no column 'url'; it has none .* metadata"):
        result.export(tmp_path / "to", format="img2dataset")
