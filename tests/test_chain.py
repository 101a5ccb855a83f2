"""The chain in Python beside `run`, and both beside scipy's components of all cosines.

On rows that the search treats in ways of its own: dense groups, whose members are not compared with
each other, and cells whose rows the PCA does not separate. The forest is merged in a tree and
streamed; the labels are sparse and dense. With one cell, nothing can be missed.
"""

from itertools import pairwise
from typing import NamedTuple

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup import InputError, Settings, SettingsError
from dask_dedup.cells.join import join_group
from dask_dedup.cells.join_groups import plan_groups
from dask_dedup.cells.leaders import load_leaders
from dask_dedup.graph import origin
from dask_dedup.runtime.executor import compute_tasks

DIM = 24
SEARCH, THRESHOLDS = 0.9, (0.9, 0.95, 0.995)
OUR_COLUMNS = [
    "row_id", "cluster_id", "cluster_size", "is_representative", "is_valid",
    "similarity_to_representative", "is_kept", "witness_row_id", "witness_similarity", "url",
    "caption",
]  # fmt: skip


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def turned(centres, cosine, rng):
    """Unit rows at this cosine to the centres, one each."""
    away = rng.normal(size=centres.shape)
    away = unit(away - (away * centres).sum(axis=1, keepdims=True) * centres)
    return cosine * centres + np.sqrt(1 - cosine**2) * away


def with_copies(rows, rng):
    """Rows in any order, with copies of some: equal ones, near ones, and unusable ones."""
    rows = rng.permutation(rows)
    copied = rng.choice(len(rows), 200, replace=False)
    near = [turned(rows[copied[100:]], cosine, rng) for cosine in (0.92, 0.96, 0.997)]
    rows = np.concatenate([rows, rows[copied], *near]).astype("f4")
    rows = rng.permutation(rows)
    bad = rng.choice(len(rows), 9, replace=False)
    rows[bad[:3]], rows[bad[3:6], 5], rows[bad[6:]] = 0, np.nan, np.inf
    return rows


def dense_rows():
    """A quarter of the rows nearly equal one centre, at cosines of 0.9995 to 0.9999 to it."""
    rng = np.random.default_rng(0)
    centre = np.tile(unit(rng.normal(size=DIM)), (1300, 1))
    shell = turned(centre[:40], 0.96, rng)
    group = turned(centre, rng.uniform(0.9995, 0.9999, (1300, 1)), rng)
    return with_copies(np.concatenate([group, shell, unit(rng.normal(size=(3300, DIM)))]), rng)


def crowded_rows():
    """Rows that share most of their length: two axes of a PCA do not separate them."""
    rng = np.random.default_rng(1)
    apart = unit(rng.normal(size=(1200, DIM)))
    return with_copies(np.sqrt(0.85) * unit(rng.normal(size=DIM)) + np.sqrt(0.15) * apart, rng)


class Case(NamedTuple):
    """A data set, and the exact cosines of its rows, invalid ones with nothing."""

    rows: np.ndarray
    cosines: np.ndarray
    pca_dim: int


@pytest.fixture(scope="module", params=["dense", "crowded"])
def case(request):
    rows = dense_rows() if request.param == "dense" else crowded_rows()
    usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    wide = np.zeros(rows.shape)
    wide[usable] = unit(rows[usable].astype("f8"))
    return Case(rows, (wide @ wide.T).astype("f4"), 16 if request.param == "dense" else 2)


def cuts(rows, parts):
    """Where the rows are cut; the third of seven parts is empty."""
    inner = np.linspace(0, rows, parts + 1).astype(int)[1:-1]
    if parts == 7:
        inner[2] = inner[1]
    return inner


class Found(NamedTuple):
    """A data set on the disk, its forest by the chain, and OUT of a run."""

    dataset: dask_dedup.Dataset
    layout: object
    forest: dd.DataFrame
    out: object


@pytest.fixture(scope="module", params=[1, 2, 7])
def found(request, case, tmp_path_factory, write_dataset):
    folder = tmp_path_factory.mktemp("chain")
    parts = np.split(case.rows, cuts(len(case.rows), request.param))
    assert (request.param == 7) == any(len(part) == 0 for part in parts)
    dataset = dask_dedup.read_dataset(write_dataset(folder / "data", parts))
    pca = dask_dedup.fit_pca(dataset, dim=case.pca_dim)
    layout = dask_dedup.build_cells(dataset, pca, folder / "cells", cells=1)
    forest = dask_dedup.spanning_forest(dask_dedup.join_cells(layout, SEARCH)).persist()
    chosen = Settings.model_validate(
        {
            "clusters": {"threshold": 0.95},
            "join": {"search_threshold": SEARCH},
            "projection": {"dim": case.pca_dim},
            "cells": {"cells": 1},
            "audit": {"queries": 20},
        }
    )
    dask_dedup.run(folder / "data", folder / "out", chosen, execute=compute_tasks)
    return Found(dataset, layout, forest, folder / "out")


def clusters_by_hand(case, threshold):
    """What CLUSTERS has of each row: by the cosines of all pairs, and scipy."""
    ids = np.arange(len(case.rows))
    linked = case.cosines >= np.float32(threshold)
    _, component = connected_components(coo_matrix(linked), directed=False)
    first = pd.Series(ids).groupby(component).min()[component].to_numpy()
    usable = case.cosines[ids, ids] > 0.5
    to_first = np.where(ids == first, np.float32(1), case.cosines[ids, first])
    return pd.DataFrame(
        {
            "row_id": ids,
            "cluster_id": first,
            "cluster_size": np.bincount(first)[first],
            "is_representative": ids == first,
            "is_valid": usable,
            "similarity_to_representative": np.where(usable, to_first, np.float32(np.nan)),
        }
    )


def check_clusters(clusters, expected):
    """Compare with what was made by hand; a product of matrices knows a cosine to 1e-7 only."""
    clusters = clusters.reset_index(drop=True)[list(expected.columns)]
    pd.testing.assert_frame_equal(clusters, expected, check_exact=False, rtol=0, atol=2e-7)


def test_the_rows_are_treated_in_ways_of_their_own(case, found):
    """Else the tests below would show nothing."""
    layout, rows = found.layout, len(case.rows)
    edges = [join_group(layout, group, SEARCH) for group in plan_groups(layout)]
    true_pairs = int(np.triu(case.cosines >= np.float32(SEARCH), 1).sum())
    if case.pca_dim == 2:  # no two rows are far apart, and few pairs are looked at one by one
        looked_at = sum(result.candidates for result in edges)
        images = case.rows[case.cosines.diagonal() > 0.5]
        images = unit(images) - unit(images).mean(axis=0)
        axes = np.linalg.svd(images, full_matrices=False)[2][:2]
        near = np.linalg.norm((images @ axes.T)[:, None] - images @ axes.T, axis=2)
        assert (near <= np.sqrt(2 - 2 * SEARCH)).mean() > 0.5
        assert true_pairs * 0.5 < looked_at < 0.1 * rows**2
    else:
        assert len(load_leaders(layout.leaders_path).row_ids)
        assert sum(result.pairs for result in edges) < 0.2 * true_pairs


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_chain_has_the_components_of_all_cosines(case, found, threshold):
    labels = dask_dedup.label_components(found.forest, threshold)
    clusters = dask_dedup.join_clusters(found.dataset, labels)
    assert clusters.npartitions == len(found.dataset.filled_parts)
    check_clusters(clusters.compute(), clusters_by_hand(case, threshold))


@pytest.mark.parametrize("labelled", ["tree", "stream"])
@pytest.mark.parametrize("merged", ["tree", "stream", "auto"])
def test_chain_equals_run_in_every_row_however_merged_and_labelled(
    found, tmp_path, merged, labelled
):
    edges = dask_dedup.join_cells(found.layout, SEARCH)
    forest = dask_dedup.write_forest(edges, tmp_path / "forest", how=merged)
    pd.testing.assert_frame_equal(forest.compute(), found.forest.compute())
    assert sorted(path.name for path in (tmp_path / "forest").iterdir()) == ["forest"]
    labels = dask_dedup.write_labels(tmp_path / "forest", 0.95, tmp_path / "labels", how=labelled)
    expected = pd.read_parquet(found.out / "clusters")[OUR_COLUMNS]
    clusters = dask_dedup.join_clusters(found.dataset, labels, forest, 0.95).compute()
    clusters = clusters[OUR_COLUMNS].reset_index(drop=True).astype(expected.dtypes)
    pd.testing.assert_frame_equal(clusters, expected)
    lazily = dask_dedup.label_components(found.forest, 0.95)
    pd.testing.assert_frame_equal(labels.compute(), lazily.compute())
    assert labels.divisions == lazily.divisions


def test_join_cells_contracts_and_no_partition_grows_with_the_pairs(case, found):
    ours = dask_dedup.join_cells(found.layout, SEARCH)
    every = dask_dedup.join_cells(found.layout, SEARCH, contract=False)
    sizes = [ours.get_partition(i).compute() for i in range(ours.npartitions)]
    for edges in sizes:
        nodes = np.unique(edges[["src", "dst"]].to_numpy())
        assert len(edges) < max(len(nodes), 1)
    assert sum(map(len, sizes)) < 2 * len(case.rows) < len(every)
    forest = dask_dedup.spanning_forest(every).compute()
    pd.testing.assert_frame_equal(forest, found.forest.compute())


def test_forest_of_a_run_goes_through_the_chain(case, found, tmp_path):
    for labels in (
        dask_dedup.label_components(dask_dedup.read_forest(found.out), 0.995),
        dask_dedup.write_labels(found.out, 0.995, tmp_path / "labels"),
    ):
        clusters = dask_dedup.join_clusters(found.dataset, labels).compute()
        check_clusters(clusters, clusters_by_hand(case, 0.995))


@pytest.mark.parametrize("cut", [100, 777])
def test_labels_cut_anywhere_are_joined_alike(case, found, tmp_path, cut, monkeypatch):
    # A million rows more are needed else: a constant, and no argument of what is public.
    monkeypatch.setattr(origin, "_CUT_ROWS", cut)
    dask_dedup.write_forest(
        dask_dedup.join_cells(found.layout, SEARCH), tmp_path / "forest", how="stream"
    )
    expected = clusters_by_hand(case, 0.9)
    for labels in (
        dask_dedup.label_components(found.forest, 0.9),
        dask_dedup.write_labels(tmp_path / "forest", 0.9, tmp_path / "labels"),
    ):
        assert labels.npartitions == -(-len(case.rows) // cut)
        for first, stop in pairwise(labels.divisions[:-1]):
            ids = labels.loc[first : stop - 1].compute().index
            assert ((ids >= first) & (ids < stop)).all()
        check_clusters(dask_dedup.join_clusters(found.dataset, labels).compute(), expected)


def test_chain_is_lazy_but_for_what_writes(found, no_compute):
    with no_compute():
        edges = dask_dedup.join_cells(found.layout, SEARCH)
        forest = dask_dedup.spanning_forest(edges)
        labels = dask_dedup.label_components(forest, 0.95)
        dask_dedup.join_clusters(found.dataset, labels)
        dask_dedup.join_clusters(found.dataset, labels, forest, 0.95)


def test_chain_without_a_forest_has_the_linkage_components(found, tmp_path):
    dask_dedup.run(
        found.dataset.path,
        tmp_path / "out",
        {"projection.dim": 8, "audit.queries": 0},
        linkage="components",
        execute=compute_tasks,
    )
    run = pd.read_parquet(tmp_path / "out" / "clusters")
    labels = dask_dedup.label_components(dask_dedup.read_forest(tmp_path / "out"), 0.95)
    ours = dask_dedup.join_clusters(found.dataset, labels).compute().reset_index(drop=True)
    for clusters in (run, ours):
        assert (clusters["is_kept"] == clusters["is_representative"]).all()
        dropped = clusters[~clusters["is_kept"]]
        assert (dropped["witness_row_id"] == dropped["cluster_id"]).all()
        similarity = dropped["similarity_to_representative"]
        assert (dropped["witness_similarity"] == similarity).all()
        assert clusters.loc[clusters["is_kept"], "witness_row_id"].isna().all()


def test_join_clusters_asks_for_forest_and_threshold_together_and_for_one_that_answers(found):
    labels = dask_dedup.label_components(found.forest, 0.95)
    for given in ({"forest": found.forest}, {"threshold": 0.95}):
        with pytest.raises(ValueError, match="expected forest and threshold together, got one"):
            dask_dedup.join_clusters(found.dataset, labels, **given)
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.9 to .* got 0\.85"):
        dask_dedup.join_clusters(found.dataset, labels, found.forest, 0.85)


def test_join_clusters_without_the_layout_reads_which_rows_are_invalid(case, found):
    labels = dask_dedup.label_components(found.forest, 0.95).compute()
    own = dd.from_pandas(labels, npartitions=1)
    own._meta.attrs.clear()
    expected = clusters_by_hand(case, 0.95)
    check_clusters(dask_dedup.join_clusters(found.dataset, own).compute(), expected)
    several = dd.from_pandas(labels, npartitions=5)
    check_clusters(dask_dedup.join_clusters(found.dataset, several).compute(), expected)


def test_thresholds_that_the_layout_does_not_answer_are_refused(case, found):
    for threshold in (0.0, -0.5, 1.01, 95.0):
        with pytest.raises(SettingsError, match="expected a cosine above 0 and at most 1"):
            dask_dedup.join_cells(found.layout, threshold)
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.9 to below 0\.999"):
        dask_dedup.label_components(found.forest, 0.9995)
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.9 to .* got 0\.85"):
        dask_dedup.label_components(found.forest, 0.85)
    if len(load_leaders(found.layout.leaders_path).row_ids):
        with pytest.raises(SettingsError, match=r"a threshold of 0\.9995 has no answer here"):
            dask_dedup.join_cells(found.layout, 0.9995)


def test_labels_of_another_data_set_are_refused(found, tmp_path, write_dataset):
    other = dask_dedup.read_dataset(write_dataset(tmp_path / "d", [np.ones((5, 3), "f4")]))
    labels = dask_dedup.label_components(found.forest, 0.95)
    with pytest.raises(InputError, match=r"has 5 rows, and the labels are of a data set with"):
        dask_dedup.join_clusters(other, labels)


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield
