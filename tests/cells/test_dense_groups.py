import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dask_dedup import build_cells, fit_pca, join_cells, read_dataset
from dask_dedup.cells.candidates import DEFAULT_LIMITS, Candidates, JoinLimits
from dask_dedup.cells.dense_groups import find_groups
from dask_dedup.cells.entries import read_entries
from dask_dedup.cells.join import join_group
from dask_dedup.cells.join_groups import plan_groups
from dask_dedup.errors import SettingsError
from dask_dedup.graph.forest import merge_forests, spanning_edges
from dask_dedup.vectors.int8_codes import code_rows
from dask_dedup.vectors.pca import load_pca

DIM = 32


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def turned(centre, cosine, rows, rng):
    """Unit rows at about this cosine to the centre."""
    away = rng.normal(size=(rows, DIM))
    away = unit(away - (away @ centre)[:, None] * centre)
    return unit(cosine * centre + np.sqrt(1 - cosine**2) * away)


@pytest.fixture(scope="module")
def near_copies():
    """Two dense groups, shells around the first, and strangers.

    A row of a shell is as similar to the leader as to the other members, give or take 0.003: at
    thresholds above the shell's own, a row hangs on a few members only.
    """
    rng = np.random.default_rng(3)
    one = unit(rng.normal(size=DIM))
    other = turned(one, 0.915, 1, rng)[0]
    rows = np.concatenate(
        [
            turned(one, 0.9999, 1500, rng),
            turned(other, 0.9998, 700, rng),
            turned(one, 0.955, 100, rng),
            turned(one, 0.94, 100, rng),
            unit(rng.normal(size=(420, DIM))),
        ]
    )
    return rng.permutation(rows).astype("f4")


def true_components(cosines, threshold):
    linked = cosines.astype("f4") >= np.float32(threshold)
    return connected_components(coo_matrix(linked), directed=False)[1]


def grouping(labels):
    """Number the groups by their first rows."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse].tolist()


def forest_of(rows, tmp_path, write_dataset, threshold, limits=DEFAULT_LIMITS, **options):
    data = read_dataset(write_dataset(tmp_path / "data", np.array_split(rows, 3)))
    layout = build_cells(data, fit_pca(data, 16), tmp_path / "cells", cells=1, cells_per_row=1.0)
    results = [
        join_group(layout, group, threshold, contract=spanning_edges, limits=limits)
        for group in plan_groups(layout, **options)
    ]
    return merge_forests([result.edges for result in results]), results


@pytest.mark.parametrize("tile_rows", [32_768, 650])
def test_join_group_dense_groups_give_the_true_components(
    near_copies, tmp_path, write_dataset, tile_rows
):
    limits = JoinLimits(group_entries=300, group_members=100, many_pairs=20)
    forest, results = forest_of(
        near_copies, tmp_path, write_dataset, 0.9, limits, tile_rows=tile_rows
    )
    assert (len(results) > 1) == (tile_rows < 32_768)
    pairs = sum(result.pairs for result in results)
    assert pairs < 150_000  # of some 1.5 million that are true
    wide = unit(near_copies.astype("f8"))
    cosines = wide @ wide.T
    exact = (wide[forest["src"]] * wide[forest["dst"]]).sum(axis=1)
    np.testing.assert_allclose(forest["similarity"], exact, atol=1e-7)
    for threshold in (0.9, *np.linspace(0.941, 0.944, 5), *np.linspace(0.956, 0.959, 9), 0.99):
        linked = forest[forest["similarity"] >= np.float32(threshold)]
        graph = coo_matrix(
            (np.ones(len(linked)), (linked["src"], linked["dst"])), (len(near_copies),) * 2
        )
        found = connected_components(graph, directed=False)[1]
        assert grouping(found) == grouping(true_components(cosines, threshold)), threshold


def test_join_group_two_dense_groups_are_linked(tmp_path, write_dataset):
    rng = np.random.default_rng(4)
    one = unit(rng.normal(size=DIM))
    groups = [turned(centre, 0.9999, 2500, rng) for centre in (one, turned(one, 0.93, 1, rng)[0])]
    rows = rng.permutation(np.concatenate(groups)).astype("f4")
    limits = JoinLimits(group_entries=500)
    forest, _ = forest_of(rows, tmp_path, write_dataset, 0.9, limits)
    assert len(forest) == len(rows) - 1
    assert (forest["similarity"] < 0.99).sum() == 1


def test_join_group_small_cells_are_not_searched_for_dense_groups(
    near_copies, tmp_path, write_dataset
):
    rows = near_copies[:2000]
    _, results = forest_of(rows, tmp_path, write_dataset, 0.95)
    wide = unit(rows.astype("f8"))
    true = np.triu((wide @ wide.T).astype("f4") >= np.float32(0.95), 1).sum()
    assert sum(result.pairs for result in results) == true


def test_join_group_at_a_high_threshold_compares_all_pairs(near_copies, tmp_path, write_dataset):
    limits = JoinLimits(group_entries=100, group_members=100)
    forest, results = forest_of(near_copies[:2000], tmp_path, write_dataset, 0.9995, limits)
    found = connected_components(
        coo_matrix((np.ones(len(forest)), (forest["src"], forest["dst"])), (2000, 2000)),
        directed=False,
    )[1]
    wide = unit(near_copies[:2000].astype("f8"))
    assert grouping(found) == grouping(true_components(wide @ wide.T, 0.9995))
    true = np.triu((wide @ wide.T).astype("f4") >= np.float32(0.9995), 1).sum()
    assert sum(result.pairs for result in results) == true


def test_join_cells_inside_dense_groups_is_refused(near_copies, tmp_path, write_dataset):
    data = read_dataset(write_dataset(tmp_path / "data", [near_copies]))
    layout = build_cells(data, fit_pca(data, 16), tmp_path / "cells")
    with pytest.raises(SettingsError, match=r"a threshold of 0\.9995 has no answer here"):
        join_cells(layout, 0.9995)
    layout = build_cells(data, fit_pca(data, 16), tmp_path / "other", dense_groups=False)
    assert join_cells(layout, 0.9995).npartitions


def test_find_groups_where_groups_overlap_follows_the_order_of_the_leaders(tmp_path, write_dataset):
    angle = np.random.default_rng(6).uniform(0, 0.25, 400)  # cosine 0.999 is an angle of 0.045
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype("f4")
    data = read_dataset(write_dataset(tmp_path / "data", [rows]))
    layout = build_cells(data, fit_pca(data, 2), tmp_path / "cells", cells=1, dense_groups=False)
    entries = read_entries(layout, 0, 1)
    limits = JoinLimits(group_entries=50, group_members=20)
    batch = Candidates(layout, entries.row_ids, np.zeros(400, np.int64), 0.9, None, limits)
    limit = load_pca(layout.pca_path).largest_code_distance(0.999)
    found = find_groups(code_rows(entries.codes), np.arange(400), limit, batch)

    wide = unit(rows[entries.row_ids].astype("f8"))
    same = (wide @ wide.T).astype("f4") >= np.float32(0.999)
    expected = np.full(400, -1)
    for position in range(0, 400, 12):  # 32 and a few evenly spaced rows
        free = expected < 0
        if free[position] and free.sum() >= 50 and (free & same[position]).sum() > 20:
            expected[free & same[position]] = position
    leaders = np.unique(expected)
    assert same[leaders].any(axis=0).all() and same[leaders].sum() > 500  # some have two leaders
    np.testing.assert_array_equal(found, expected)
    assert len(batch.finish()) == 400 - len(leaders)
