"""Thresholds that a forest does not answer: searched anew by a run, refused by the library.

The rows hold a dense group, whose members are compared with its leader only in a search below
0.999: the forest lacks the pairs inside it, some of them at 0.9995 and above.
"""

from functools import partial

import dask
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup import Settings, SettingsError
from dask_dedup.graph.forest_range import ForestRange, combined_range, range_of, with_range
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.schema import EDGES

run_here = partial(dask_dedup.run, execute=compute_tasks)

DIM = 48


def group_of_twins():
    """3,800 rows of noise, and 1,400 around one centre: each with a twin that is nearer still."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5_200, DIM))
    centre = rng.normal(size=DIM)
    centre /= np.linalg.norm(centre)
    for member in range(0, 1_400, 2):
        cosine = rng.uniform(0.9991, 0.9998)
        direction = rng.normal(size=DIM)
        for row, off in ((member, 0.0), (member + 1, 0.1)):
            away = direction + off * rng.normal(size=DIM)
            away -= (away @ centre) * centre
            away /= np.linalg.norm(away)
            rows[row] = cosine * centre + np.sqrt(1 - cosine**2) * away
    return rows[rng.permutation(len(rows))].astype(np.float32)


def truth(rows, threshold):
    """Smallest row of each row's component, by brute force."""
    unit = rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    linked = np.triu((unit @ unit.T).astype(np.float32) >= np.float32(threshold), 1)
    _, component = connected_components(coo_matrix(linked), directed=False)
    first = pd.Series(np.arange(len(rows))).groupby(component).min()
    return first.loc[component].to_numpy()


@pytest.fixture(scope="module")
def rows():
    return group_of_twins()


@pytest.fixture(scope="module")
def data(rows, tmp_path_factory, write_dataset):
    return write_dataset(tmp_path_factory.mktemp("twins") / "data", np.split(rows, 4))


def settings(threshold, search=None):
    return Settings.model_validate(
        {
            "clusters": {"threshold": threshold},
            "join": {"search_threshold": search},
            "audit": {"queries": 200},
            "cells": {"cells": 1},
        }
    )


def cluster_ids(out):
    return pd.read_parquet(out / "clusters")["cluster_id"].to_numpy()


def test_rows_have_pairs_that_a_search_with_dense_groups_lacks(rows, data, tmp_path):
    """Else the tests below would show nothing."""
    run_here(data, tmp_path / "out", settings(0.95))
    forest = pd.read_parquet(tmp_path / "out" / "forest")
    found = (forest["similarity"] >= np.float32(0.9995)).sum()
    assert found < 0.5 * (truth(rows, 0.9995) != np.arange(len(rows))).sum()


@pytest.mark.parametrize("threshold", [0.99899999999, 0.9995, 1.0])
def test_run_above_the_range_of_its_forest_searches_anew(
    rows, data, tmp_path, threshold, stage_notes
):
    out = tmp_path / "out"
    run_here(data, out, settings(0.95))
    assert (cluster_ids(out) == truth(rows, 0.95)).all()
    seen = stage_notes()
    run_here(data, out, settings(threshold), progress=seen)
    assert seen.names == ["fit", "layout", "join", "forest", "witnesses", "clusters", "report"]
    assert (cluster_ids(out) == truth(rows, threshold)).all()


def test_run_whose_two_thresholds_lie_on_both_sides_looks_inside(rows, data, tmp_path, stage_notes):
    out = tmp_path / "out"
    run_here(data, out, settings(0.9995, search=0.9))
    assert (cluster_ids(out) == truth(rows, 0.9995)).all()
    for threshold in (0.9, 0.9998):  # a forest without such gaps answers both
        seen = stage_notes()
        run_here(data, out, settings(threshold, search=0.9), progress=seen)
        assert (cluster_ids(out) == truth(rows, threshold)).all()


def test_run_inside_the_range_labels_only(rows, data, tmp_path, stage_notes):
    out = tmp_path / "out"
    run_here(data, out, settings(0.95, search=0.9))
    seen = stage_notes()
    run_here(data, out, settings(0.9985, search=0.9), progress=seen)
    assert seen.names == ["witnesses", "clusters", "report"]
    assert (cluster_ids(out) == truth(rows, 0.9985)).all()


@pytest.mark.parametrize("dense_groups", [True, False])
def test_label_components_asks_the_forest(rows, data, tmp_path, dense_groups):
    dataset = dask_dedup.read_dataset(data)
    with dask.config.set(scheduler="synchronous"):
        pca = dask_dedup.fit_pca(dataset, dim=32)
        layout = dask_dedup.build_cells(
            dataset, pca, tmp_path / "cells", cells=1, dense_groups=dense_groups
        )
        lazy = dask_dedup.spanning_forest(dask_dedup.join_cells(layout, threshold=0.9))
        for forest in (lazy, lazy.persist()):
            labels = dask_dedup.label_components(forest, 0.95).compute()
            got = np.arange(len(rows))
            got[labels.index] = labels["cluster_id"]
            assert (got == truth(rows, 0.95)).all()
            with pytest.raises(SettingsError, match=r"from 0\.9 to .* got 0\.85"):
                dask_dedup.label_components(forest, 0.85)
            if dense_groups:
                with pytest.raises(
                    SettingsError, match=r"to below 0\.999 .*dense groups.* 0\.9995"
                ):
                    dask_dedup.label_components(forest, 0.9995)
                continue
            labels = dask_dedup.label_components(forest, 0.9995).compute()
            got = np.arange(len(rows))
            got[labels.index] = labels["cluster_id"]
            assert (got == truth(rows, 0.9995)).all()


def test_read_forest_of_a_run_asks_too(rows, data, tmp_path):
    run_here(data, tmp_path / "out", settings(0.95, search=0.9))
    forest = dask_dedup.read_forest(tmp_path / "out")
    labels = dask_dedup.label_components(forest, 0.95).compute(scheduler="sync")
    got = np.arange(len(rows))
    got[labels.index] = labels["cluster_id"]
    assert (got == truth(rows, 0.95)).all()
    with pytest.raises(SettingsError, match=r"to below 0\.999"):
        dask_dedup.label_components(forest, 0.9995)
    read = pd.read_parquet(tmp_path / "out" / "forest" / "part-00000.parquet")
    assert range_of(read) == ForestRange(0.9, 0.999)


@pytest.mark.parametrize(
    ("known", "inside", "outside"),
    [
        (ForestRange(0.95, None), [0.95, 0.97, 0.999, 1.0], [0.9, 0.9499]),
        (ForestRange(0.9, 0.999), [0.9, 0.95, 0.99899], [0.999, 1.0, 0.89]),
    ],
)
def test_forest_range_by_hand(known, inside, outside):
    assert all(known.answers(threshold) for threshold in inside)
    assert not any(known.answers(threshold) for threshold in outside)


def test_combined_range_is_what_each_answers():
    assert combined_range([]) is None
    assert combined_range([None, ForestRange(0.9, None)]) == ForestRange(0.9, None)
    several = [ForestRange(0.9, None), ForestRange(0.93, 0.999), ForestRange(0.8, 0.99)]
    assert combined_range(several) == ForestRange(0.93, 0.99)


def test_with_range_leaves_the_frame_it_was_given_alone():
    known = ForestRange(0.9, 0.999)
    noted = with_range(EDGES, known)
    assert range_of(noted) == known
    assert range_of(EDGES) is None
    assert range_of(with_range(noted, None)) is None
