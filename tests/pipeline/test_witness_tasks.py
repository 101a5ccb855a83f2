"""Which rows stay after a run: every dropped row has its witness, by brute force, however cut."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup import load_settings
from dask_dedup.pipeline import witness_tasks
from dask_dedup.results import witness
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks, audit_queries=0)
KEPT = ["row_id", "cluster_id", "is_kept", "witness_row_id", "witness_similarity"]


def clusters_of(out):
    return pd.read_parquet(out / "clusters")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(rows):
    usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    wide = np.zeros(rows.shape)
    wide[usable] = unit(rows[usable].astype("f8"))
    return (wide @ wide.T).clip(-1, 1).astype("f4")


def check(clusters, similarity, threshold):
    """Every dropped row has a witness of its cluster that stays, near enough by float64 products;
    every representative stays."""
    assert clusters["row_id"].tolist() == list(range(len(similarity)))
    kept = clusters["is_kept"].to_numpy()
    dropped = clusters[~kept]
    own = dropped["row_id"].to_numpy()
    by = dropped["witness_row_id"].to_numpy().astype(int)
    assert kept[by].all()
    assert (clusters["cluster_id"].to_numpy()[by] == dropped["cluster_id"]).all()
    assert (dropped["witness_similarity"] >= np.float32(threshold)).all()
    np.testing.assert_allclose(
        dropped["witness_similarity"], similarity[own, by], rtol=0, atol=2e-7
    )
    assert clusters.loc[kept, ["witness_row_id", "witness_similarity"]].isna().all(axis=None)
    assert kept[clusters["is_representative"]].all() and kept[~clusters["is_valid"]].all()


def greedy_cover(near):
    """Rows that cover all, each the one that is near most rows that are not covered yet."""
    near = near | np.eye(len(near), dtype=bool)
    left, gain, kept = np.ones(len(near), bool), near.sum(axis=1), []
    while left.any():
        kept.append(gain.argmax())
        new = near[kept[-1]] & left
        left &= ~new
        gain = gain - near[:, new].sum(axis=1)
    return np.array(kept)


@pytest.mark.parametrize(
    ("threshold", "components", "stay", "greedy"),
    [
        (0.95, 5987, 6227, 6137),
        pytest.param(0.9, 5103, 5396, 5286, marks=pytest.mark.slow),
    ],
)
def test_run_drops_only_rows_with_a_witness_and_keeps_few_more_than_must_stay(
    clipart, tmp_path, threshold, components, stay, greedy
):
    summary = run_here(clipart, tmp_path / "out", threshold=threshold)
    rows = np.concatenate([np.load(path) for path in sorted(clipart.glob("img_emb/*.npy"))])
    similarity = cosines(rows)
    clusters = clusters_of(tmp_path / "out")
    check(clusters, similarity, threshold)
    kept = np.flatnonzero(clusters["is_kept"])
    assert (summary["kept"], summary["dropped"]) == (len(kept), len(rows) - len(kept))
    assert (summary["linkage"], summary["clusters"]) == ("star", components)
    near = similarity >= np.float32(threshold)
    assert (len(greedy_cover(near)), len(kept)) == (greedy, pytest.approx(stay, abs=10))
    # What is handed out has next to no duplicates of its own.
    assert np.triu(near[np.ix_(kept, kept)], 1).sum() <= 10


@pytest.fixture
def small_sizes(monkeypatch):
    """Clusters of a few hundred rows are large ones, and there are many tasks."""
    # Constants, not settings: no caller of a run has a reason to change them.
    monkeypatch.setattr(witness, "_CARRIED_ROWS", 4)
    monkeypatch.setattr(witness_tasks, "WINDOW_ROWS", 16)
    monkeypatch.setattr(witness_tasks, "GROUP_ROWS", 64)
    monkeypatch.setattr(witness_tasks, "GROUPED_ROWS", 50)


def odd_rows():
    """Two walks of 700 links, a hub with 60 spokes, a clique, equal rows of all, invalid ones."""
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(2, 1, 48)) + np.cumsum(0.25 * rng.normal(size=(2, 700, 48)), axis=1)
    hub = np.concatenate(
        [
            np.eye(48)[:1],
            0.96 * np.eye(48)[:1] + 0.28 * unit(rng.normal(size=(60, 48)) * np.r_[0, np.ones(47)]),
        ]
    )
    clique = rng.normal(size=(1, 48)) + 0.01 * rng.normal(size=(80, 48))
    rows = np.concatenate([*walks, hub, clique, rng.normal(size=(200, 48))])
    rows = np.concatenate([rows, rows[rng.choice(len(rows), 500)]]).astype("f4")
    rows = rows[rng.permutation(len(rows))]
    bad = rng.choice(len(rows), 9, replace=False)
    rows[bad[:3]], rows[bad[3:6], 5], rows[bad[6:]] = 0, np.nan, np.inf
    return rows


@pytest.fixture(scope="module")
def odd():
    return odd_rows()


@pytest.fixture(scope="module")
def similarity(odd):
    return cosines(odd)


def run_on(rows, parts, folder, write_dataset, **options):
    cuts = np.linspace(0, len(rows), parts + 1).astype(int)[1:-1]
    if parts == 7:
        cuts[2] = cuts[1]  # an empty part
    data = write_dataset(folder / "data", np.split(rows, cuts))
    # All cells are seen by all rows: nothing is missed.
    options = {"cells.cells": 1, "read.skip_bad_parts": False, **options}
    return run_here(data, folder / "out", options)


@pytest.mark.parametrize("sizes", ["small", "as they are"])
def test_run_is_the_same_for_any_parts(odd, similarity, tmp_path, write_dataset, request, sizes):
    if sizes == "small":
        request.getfixturevalue("small_sizes")
    found = []
    for parts in (1, 2, 7):
        summary = run_on(odd, parts, tmp_path / f"{parts}", write_dataset)
        found.append(clusters_of(tmp_path / f"{parts}" / "out")[KEPT])
        check(clusters_of(tmp_path / f"{parts}" / "out"), similarity, 0.95)
        assert summary["invalid_rows"] == 9
        assert summary["clusters"] + 9 < summary["kept"] < summary["rows"]
    for one in found[1:]:
        pd.testing.assert_frame_equal(one, found[0])


@pytest.mark.slow  # `test_distributed.py` compares all columns, of fewer and smaller clusters
def test_run_with_worker_processes_is_the_same(odd, tmp_path, write_dataset):
    run_on(odd, 7, tmp_path, write_dataset)
    out = tmp_path / "out-2"
    dask_dedup.run(tmp_path / "data", out, {"cells.cells": 1}, audit_queries=0, workers=2)
    pd.testing.assert_frame_equal(clusters_of(out)[KEPT], clusters_of(tmp_path / "out")[KEPT])


@pytest.mark.parametrize("threshold", [0.9, 0.97, 1.0])
def test_run_at_any_threshold_and_relabelled_from_a_kept_forest(
    odd, similarity, tmp_path, write_dataset, small_sizes, threshold, stage_notes
):
    """At 1, rows that are equal are each other's witnesses, and those that are nearly are not."""
    fresh = tmp_path / "fresh"
    summary = run_on(odd, 2, fresh, write_dataset, **{"clusters.threshold": threshold})
    check(clusters_of(fresh / "out"), similarity, threshold)
    if threshold == 1.0:
        assert summary["dropped"] == summary["duplicates"] > 400
        return
    out = tmp_path / "out"
    options = {"cells.cells": 1, "join.search_threshold": 0.9}
    run_here(fresh / "data", out, {**options, "clusters.threshold": 0.95})
    seen = stage_notes()
    run_here(fresh / "data", out, {**options, "clusters.threshold": threshold}, progress=seen)
    assert seen.names == ["witnesses", "clusters", "report"]
    pd.testing.assert_frame_equal(clusters_of(out)[KEPT], clusters_of(fresh / "out")[KEPT])


def test_run_with_linkage_components_keeps_the_representatives(
    odd, tmp_path, write_dataset, stage_notes
):
    star = run_on(odd, 2, tmp_path, write_dataset)
    seen = stage_notes()
    settings = {"cells.cells": 1, "clusters.linkage": "components"}
    summary = run_here(tmp_path / "data", tmp_path / "out", settings, progress=seen)
    assert seen.names == ["witnesses", "clusters", "report"]  # the forest is the same
    clusters = clusters_of(tmp_path / "out")
    assert (clusters["is_kept"] == clusters["is_representative"]).all()
    dropped = clusters[~clusters["is_kept"]]
    assert (dropped["witness_row_id"] == dropped["cluster_id"]).all()
    assert (dropped["witness_similarity"] == dropped["similarity_to_representative"]).all()
    assert summary["dropped"] == summary["duplicates"] == star["duplicates"] > star["dropped"]
    assert (summary["linkage"], summary["kept"]) == ("components", summary["clusters"] + 9)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("before", ["compared", "groups", "witnesses", "clusters"])
def test_run_stopped_before_a_stage_goes_on_from_there(
    odd, tmp_path, write_dataset, small_sizes, before
):
    def stopping(tasks, on_result):
        if any(task.key.startswith(f"{before}-") for task in tasks):
            done.extend(compute_tasks(tasks[:1], on_result))
            raise StoppedError
        return compute_tasks(tasks, on_result)

    run_on(odd, 7, tmp_path, write_dataset)
    done, ran = [], []
    out = tmp_path / "again"
    settings = load_settings(None, {"cells.cells": 1})
    with pytest.raises(StoppedError):
        dask_dedup.run(tmp_path / "data", out, settings, audit_queries=0, execute=stopping)
    assert done

    def counting(tasks, on_result):
        ran.extend(task.key for task in tasks)
        return compute_tasks(tasks, on_result)

    dask_dedup.run(tmp_path / "data", out, settings, audit_queries=0, execute=counting)
    stages = ["compared", "groups", "witnesses", "clusters"]
    assert not any(key.startswith(("layout", "join", "forest", "labels")) for key in ran)
    assert not any(
        key.startswith(f"{name}-") for key in ran for name in stages[: stages.index(before)]
    )
    pd.testing.assert_frame_equal(clusters_of(out), clusters_of(tmp_path / "out"))


def test_run_that_verifies_no_pair_has_the_linkage_components_and_says_so(tmp_path, write_dataset):
    rng = np.random.default_rng(1)
    rows = np.tile(rng.normal(size=(150, 16)), (2, 1)).astype("f4")
    data, said = write_dataset(tmp_path / "data", [rows]), []
    options = {"finder": "adc", "verify": False, "tolerance": 1.0}
    settings = {"adc.factory": "IVF4,PQ4x6"}
    summary = run_here(data, tmp_path / "out", settings, say=said.append, **options)
    assert summary["linkage"] == "components"
    assert any(line.startswith("linkage components: one row of each") for line in said)
    clusters = clusters_of(tmp_path / "out")
    assert (clusters["is_kept"] == clusters["is_representative"]).all()
    said.clear()
    run_here(data, tmp_path / "out", settings, say=said.append, linkage="components", **options)
    assert not any(line.startswith("linkage") for line in said)
