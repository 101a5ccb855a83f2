from functools import partial

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup import (
    InputError,
    NetworkSettings,
    Settings,
    SettingsError,
    fit_compressor,
    read_dataset,
    save_model,
)
from dask_dedup.graph.forest_file import check_answers
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

GENEROUS = {"factory": "IVF8,PQ4x6", "nprobe": 8, "k": 4, "tolerance": 3.0}


def settings(threshold=0.95, audit=200, **adc):
    return Settings.model_validate(
        {
            "finder": "adc",
            "adc": adc,
            "clusters": {"threshold": threshold},
            "audit": {"queries": audit},
        }
    )


@pytest.fixture(scope="module")
def rows():
    """Groups of up to 60 near-copies, some equal, one row invalid."""
    rng = np.random.default_rng(2)
    sizes = np.r_[60, 25, np.repeat([1, 2, 4], [150, 60, 20])]
    groups = np.repeat(rng.standard_normal((len(sizes), 24)), sizes, axis=0)
    values = groups + 0.05 * rng.standard_normal(groups.shape)
    values[5:9] = values[4]
    values = values[rng.permutation(len(values))].astype("f4")
    values[17] = np.nan
    return values


def truth(values, threshold):
    valid = ~np.isnan(values).any(axis=1)
    unit = np.where(valid[:, None], values, 0).astype("f8")
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
    labels = connected_components(unit @ unit.T >= threshold, directed=False)[1]
    return pd.Series(np.arange(len(values))).groupby(labels).transform("min").to_numpy()


def clusters(out):
    return pd.read_parquet(out / "clusters")["cluster_id"].to_numpy()


@pytest.mark.parametrize("cuts", [[], [100], [1, 17, 18, 300]])
def test_run_verified_with_generous_settings_equals_brute_force_for_any_parts(
    rows, tmp_path, write_dataset, cuts
):
    data = write_dataset(tmp_path / "d", np.split(rows, cuts))
    summary = run_here(data, tmp_path / "out", settings(**GENEROUS))
    assert (clusters(tmp_path / "out") == truth(rows, 0.95)).all()
    assert (summary["finder"], summary["is_verified"]) == ("adc", True)
    assert summary["found"]["saturated"] > 25
    assert summary["found"]["indexed"] + summary["found"]["identical"] == len(rows) - 1
    assert summary["invalid_rows"] == 1
    assert summary["audit"]["pair_recall"] == 1
    assert [stage["name"] for stage in summary["stages"]] == [
        *("train", "shards", "tolerance", "search", "forest", "witnesses", "clusters", "report")
    ]
    check_answers(tmp_path / "out" / "forest" / "part-00000.parquet", 0.9999)


def test_run_calibrates_the_tolerance_on_real_images(clipart, tmp_path):
    summary = run_here(clipart, tmp_path / "out", settings())
    chosen = summary["found"]["calibration"]
    assert chosen["is_reached"] and chosen["queries"] > 300
    assert summary["found"]["tolerance"] == chosen["tolerance"] >= 0
    assert summary["audit"]["pair_recall"] > 0.99
    exact = pd.read_parquet(clipart / "exact_pairs.parquet")
    forest = pd.read_parquet(tmp_path / "out" / "forest")
    joined = forest.merge(exact, on=["src", "dst"], how="left", suffixes=("", "_exact"))
    assert (joined["similarity"] == joined["similarity_exact"]).all()


@pytest.mark.parametrize("kind", ["pca", pytest.param("snip", marks=pytest.mark.slow)])
def test_run_behind_a_compressor_finds_the_true_pairs_of_real_images(clipart, tmp_path, kind):
    network = NetworkSettings(epochs=2, width=128)
    model = fit_compressor(read_dataset(clipart), kind, 32, settings=network)
    save_model(model, tmp_path / "model")
    chosen = settings(model=str(tmp_path / "model"))
    summary = run_here(clipart, tmp_path / "out", chosen)
    assert summary["found"]["calibration"]["is_reached"]
    assert summary["audit"]["pair_recall"] > 0.98
    exact = pd.read_parquet(clipart / "exact_pairs.parquet")
    forest = pd.read_parquet(tmp_path / "out" / "forest")
    joined = forest.merge(exact, on=["src", "dst"], how="left", suffixes=("", "_exact"))
    assert (joined["similarity"] == joined["similarity_exact"]).all()


def test_run_unverified_is_marked_and_cannot_be_relabelled(rows, tmp_path, write_dataset):
    data = write_dataset(tmp_path / "d", [rows[:200], rows[200:]])
    out = tmp_path / "out"
    summary = run_here(data, out, settings(verify=False, precision=0.9))
    assert summary["is_verified"] is False
    forest = pq.read_table(out / "forest" / "part-00000.parquet")
    assert forest.schema.metadata == {b"dask_dedup.similarity": b"quantized"}
    assert summary["duplicates"] == forest.num_rows
    assert summary["audit"]["pair_recall"] > 0.8
    with pytest.raises(SettingsError, match="holds quantized distances of a run with --no-verify"):
        check_answers(out / "forest" / "part-00000.parquet", 0.97)


def test_run_rows_all_equal_are_one_cluster(tmp_path, write_dataset):
    rows = np.tile(np.arange(1, 9, dtype="f2"), (3000, 1))
    data = write_dataset(tmp_path / "d", [rows[:1000], rows[1000:]])
    for verify, tolerance in ((True, 1.0), (False, 1.0), (False, 0.0)):
        chosen = settings(verify=verify, tolerance=tolerance)
        summary = run_here(data, tmp_path / f"out-{verify}-{tolerance}", chosen)
        assert (summary["clusters"], summary["largest_cluster"]) == (1, 3000)
        assert summary["found"]["indexed"] == 2


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_run_on_tiny_data_equals_brute_force(tmp_path, write_dataset, count):
    values = np.random.default_rng(count).normal(size=(count, 3)).astype("f4")
    values[-1] = values[0]
    summary = run_here(write_dataset(tmp_path / "d", [values]), tmp_path / "out", settings())
    assert summary["clusters"] == len(np.unique(truth(values, 0.95)))


def test_run_fewer_rows_than_centroids_is_refused(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "d", [np.eye(9, 8, dtype="f4")[:8]])
    with pytest.raises(InputError, match="16 centroids cannot be trained on 8 rows"):
        run_here(data, tmp_path / "out", settings(factory="IVF16,Flat"))
    assert not (tmp_path / "out" / "clusters").exists()


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize("left", [1, 4, 6])
def test_run_after_an_interruption_continues_and_equals_an_undisturbed_run(
    rows, tmp_path, write_dataset, left
):
    data = write_dataset(tmp_path / "d", np.split(rows, [100, 250]))
    chosen = settings(**{**GENEROUS, "tolerance": None})
    done = []

    def interrupted(tasks, on_result):
        results = []
        for task in tasks:
            if len(done) == left:
                raise InterruptedRunError
            results += compute_tasks([task], on_result)
            done.append(task)
        return results

    with pytest.raises(InterruptedRunError):
        run_here(data, tmp_path / "out", chosen, execute=interrupted)
    assert not (tmp_path / "out" / "summary.json").exists()
    run_here(data, tmp_path / "out", chosen)
    run_here(data, tmp_path / "other", chosen)
    forests = [pq.read_table(tmp_path / name / "forest") for name in ("out", "other")]
    assert forests[0] == forests[1]
