import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup import InputError, Settings
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


def settings(threshold=0.95, **tables):
    return Settings.model_validate({"clusters": {"threshold": threshold}, **tables})


def read_clusters(out):
    return pd.read_parquet(out / "clusters")


def true_clusters(clipart, threshold, rows):
    pairs = pd.read_parquet(clipart / "exact_pairs.parquet")
    pairs = pairs[pairs["similarity"] >= np.float32(threshold)]
    graph = coo_matrix((np.ones(len(pairs)), (pairs["src"], pairs["dst"])), (rows, rows))
    labels = connected_components(graph, directed=False)[1]
    return pd.Series(np.arange(rows)).groupby(labels).transform("min").to_numpy()


class InterruptedRunError(Exception):
    pass


class FailingExecute:
    """Computes tasks one by one, and stops after so many of them."""

    def __init__(self, tasks):
        self.left = tasks
        self.done = 0

    def __call__(self, tasks, on_result):
        results = []
        for task in tasks:
            if self.left == 0:
                raise InterruptedRunError
            self.left -= 1
            self.done += 1
            results += compute_tasks([task], on_result)
        return results


@pytest.fixture(scope="module")
def whole():
    """What computes the tasks of `result`, and counts them."""
    return FailingExecute(-1)


@pytest.fixture(scope="module")
def result(clipart, tmp_path_factory, whole):
    out = tmp_path_factory.mktemp("run") / "out"
    chosen = settings(join={"search_threshold": 0.9})
    return out, run_here(clipart, out, chosen, execute=whole)


@pytest.mark.parametrize("threshold", [0.9, 0.95])
def test_run_on_real_images_has_exact_edges_and_scipys_clusters(
    clipart, result, tmp_path, threshold
):
    out, _ = result
    if threshold != 0.95:
        out = tmp_path / "out"
        run_here(clipart, out, settings(threshold))
    exact = pd.read_parquet(clipart / "exact_pairs.parquet")
    forest = pd.read_parquet(out / "forest")
    joined = forest.merge(exact, on=["src", "dst"], how="left", suffixes=("", "_exact"))
    assert (joined["similarity"] == joined["similarity_exact"]).all()
    clusters = read_clusters(out)
    right = clusters["cluster_id"].to_numpy() == true_clusters(clipart, threshold, len(clusters))
    assert right.mean() >= 0.999


def test_run_forest_answers_a_lower_threshold_without_a_new_search(clipart, result):
    out, _ = result
    forest = pd.read_parquet(out / "forest")
    labels = dask_dedup.graph.forest.label_forest(forest, 0.9)
    ours = np.arange(10_248)
    ours[labels.index] = labels["cluster_id"]
    assert (ours == true_clusters(clipart, 0.9, 10_248)).mean() >= 0.999


def test_run_outputs_are_what_other_tools_read(clipart, result):
    out, summary = result
    assert json.loads((out / "summary.json").read_text()) == summary
    files = sorted((out / "clusters").iterdir())
    rows = [len(np.load(path, mmap_mode="r")) for path in sorted((clipart / "img_emb").iterdir())]
    assert [len(pd.read_parquet(path)) for path in files] == rows
    clusters = read_clusters(out)
    assert clusters["row_id"].tolist() == list(range(10_248))
    metadata = pd.read_parquet(clipart / "metadata")
    assert clusters["url"].tolist() == metadata["url"].tolist()
    assert set(metadata.columns) <= set(clusters.columns)
    assert pd.read_parquet(out / "invalid").empty
    histogram = pd.read_csv(out / "histogram.csv")
    assert histogram["rows"].sum() == summary["rows"]
    sizes = clusters.groupby("cluster_id").size()
    assert histogram["clusters"].tolist() == sizes.value_counts().sort_index().tolist()
    largest = [(-one["rows"], one["cluster_id"]) for one in summary["largest_clusters"]]
    assert largest == sorted((-rows, i) for i, rows in sizes.items())[:5]
    assert (clusters["cluster_size"] == sizes.loc[clusters["cluster_id"]].to_numpy()).all()
    assert (out / "histogram.png").stat().st_size > 10_000
    assert not (out / "stages").exists()


def test_run_summary_keeps_its_contract(result):
    _, summary = result
    assert summary["rows"] == 10_248
    assert summary["duplicates"] == summary["rows"] - summary["invalid_rows"] - summary["clusters"]
    assert summary["duplicate_fraction"] == summary["duplicates"] / summary["rows"]
    assert (summary["threshold"], summary["search_threshold"]) == (0.95, 0.9)
    assert summary["finder"] == "join"
    assert [stage["name"] for stage in summary["stages"]] == [
        "fit",
        "layout",
        "join",
        "forest",
        "witnesses",
        "clusters",
        "report",
    ]
    assert all(set(stage) == {"name", "seconds", "rows_per_second"} for stage in summary["stages"])
    assert summary["wall_seconds"] > 0
    assert summary["peak_memory_bytes"] > 1 << 27
    audit = summary["audit"]
    assert audit["all_united"] == audit["queries_with_pairs"] > 300
    assert audit["united_pairs"] == audit["true_pairs"]
    assert {"clusters_of_two_or_more", "largest_cluster", "versions"} <= set(summary)


def test_run_again_is_finished_and_settings_toml_repeats_it(clipart, result, tmp_path):
    out, summary = result
    assert run_here(clipart, out, settings(join={"search_threshold": 0.9})) == summary
    loaded = dask_dedup.load_settings(out / "settings.toml")
    assert loaded == settings(join={"search_threshold": 0.9})


def test_the_chain_in_python_equals_run(clipart, result, tmp_path):
    out, _ = result
    data = dask_dedup.read_dataset(clipart)
    layout = dask_dedup.build_cells(data, dask_dedup.fit_pca(data), tmp_path / "cells")
    forest = dask_dedup.spanning_forest(dask_dedup.join_cells(layout, 0.9))
    labels = dask_dedup.label_components(forest, 0.95)
    clusters = dask_dedup.join_clusters(data, labels, forest, 0.95).compute()
    expected = read_clusters(out)
    assert clusters["cluster_id"].tolist() == expected["cluster_id"].tolist()
    assert clusters["is_kept"].tolist() == expected["is_kept"].tolist()
    assert clusters["caption"].fillna("").tolist() == expected["caption"].fillna("").tolist()


# Quickly also: `result` is of five parts, and tests of the layout cut rows in four ways.
@pytest.mark.parametrize("parts", [*(pytest.param(n, marks=pytest.mark.slow) for n in (3, 7)), 20])
def test_run_does_not_depend_on_the_parts(clipart, result, tmp_path, write_dataset, parts):
    out, _ = result
    rows = np.concatenate([np.load(path) for path in sorted((clipart / "img_emb").iterdir())])
    cuts = np.sort(np.random.default_rng(parts).choice(len(rows), parts - 1, replace=False))
    folder = write_dataset(tmp_path / "data", np.split(rows, cuts))
    run_here(folder, tmp_path / "out", settings(audit={"queries": 0}))
    ours, expected = read_clusters(tmp_path / "out"), read_clusters(out)
    assert ours["cluster_id"].tolist() == expected["cluster_id"].tolist()


@pytest.mark.parametrize("tasks", [1, 5, 12])
def test_run_after_an_interruption_continues_and_equals_an_undisturbed_run(
    clipart, result, whole, tmp_path, tasks
):
    out, _ = result
    chosen = settings(join={"search_threshold": 0.9})
    with pytest.raises(InterruptedRunError):
        run_here(clipart, tmp_path / "out", chosen, execute=FailingExecute(tasks))
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "clusters").exists()
    rest = FailingExecute(-1)
    run_here(clipart, tmp_path / "out", chosen, execute=rest)
    fit_tasks = 2  # the models are kept once both are trained
    assert rest.done == whole.done - (tasks if tasks >= fit_tasks else 0)
    pd.testing.assert_frame_equal(read_clusters(tmp_path / "out"), read_clusters(out))


@pytest.mark.parametrize("dim", [1, 2, 3, 1100])
@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_run_on_tiny_data_equals_brute_force(tmp_path, write_dataset, rows, dim):
    values = np.random.default_rng(rows).normal(size=(rows, dim)).astype("f4")
    values[-1] = values[0]
    summary = run_here(write_dataset(tmp_path / "d", [values]), tmp_path / "out")
    unit = values.astype("f8") / np.linalg.norm(values.astype("f8"), axis=1, keepdims=True)
    linked = unit @ unit.T >= 0.95 - 1e-12
    assert summary["clusters"] == connected_components(linked)[0]


def test_run_on_identical_rows_is_one_cluster(tmp_path, write_dataset):
    rows = np.tile(np.arange(1, 9, dtype="f2"), (5000, 1))
    folder = write_dataset(tmp_path / "d", [rows[:3000], rows[3000:]])
    summary = run_here(folder, tmp_path / "out")
    assert (summary["clusters"], summary["largest_cluster"]) == (1, 5000)
    assert summary["audit"]["all_united_share"] == 1


def test_run_on_unusable_rows_only_is_refused(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [np.full((4, 3), np.nan, "f4")])
    with pytest.raises(InputError, match="none of 4 sampled embeddings is usable"):
        run_here(folder, tmp_path / "out")


@pytest.mark.gpu
@pytest.mark.parametrize("threshold", [0.8, 0.95])
def test_run_on_a_gpu_gives_the_results_of_the_processor(clipart, tmp_path, threshold):
    for device in ("cpu", "cuda"):
        run_here(clipart, tmp_path / device, settings(threshold, compute={"device": device}))
    for table in ("forest", "clusters"):
        here, there = (pd.read_parquet(tmp_path / device / table) for device in ("cpu", "cuda"))
        pd.testing.assert_frame_equal(there, here)


@pytest.mark.gpu
def test_run_on_a_gpu_that_workers_share_gives_the_results_of_one(clipart, tmp_path):
    one, three = tmp_path / "one", tmp_path / "three"
    dask_dedup.run(clipart, one, threshold=0.95)
    dask_dedup.run(clipart, three, threshold=0.95, device="cuda", workers=3)
    pd.testing.assert_frame_equal(read_clusters(three), read_clusters(one))
