import numpy as np
import pytest

from dask_dedup import build_cells, fit_pca, join_cells, read_dataset
from dask_dedup.cells.candidates import JoinLimits
from dask_dedup.cells.join import join_group
from dask_dedup.cells.join_groups import plan_groups
from dask_dedup.graph.forest import spanning_edges


def near_copies(rows=600, dim=24, seed=0, dtype="f4"):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(rows // 4, dim))
    copies = base[rng.integers(0, len(base), rows)] + rng.normal(size=(rows, dim)) * rng.choice(
        [0.0, 0.05, 0.2, 0.35], (rows, 1)
    )
    return copies.astype(dtype)


def brute_force(rows, threshold):
    wide = rows.astype("f8")
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = np.clip(unit @ unit.T, -1, 1)
    src, dst = np.nonzero(np.triu(cosines >= threshold - 1e-9, 1))
    return {(int(i), int(j)): cosines[i, j] for i, j in zip(src, dst, strict=True)}


def build(tmp_path, write_dataset, parts, **options):
    data = read_dataset(write_dataset(tmp_path / "data", parts))
    return build_cells(data, fit_pca(data, 8), tmp_path / "cells", **options)


def found(edges):
    return {(s, d): c for s, d, c in zip(edges.src, edges.dst, edges.similarity, strict=True)}


@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_join_cells_in_one_cell_finds_what_brute_force_finds(
    tmp_path, write_dataset, threshold, dtype
):
    rows = near_copies(dtype=dtype)
    layout = build(tmp_path, write_dataset, np.split(rows, [200, 210]), cells=1, cells_per_row=1.0)
    edges = found(join_cells(layout, threshold, contract=False).compute(scheduler="synchronous"))
    expected = brute_force(rows, threshold)
    # Equal rows stand for each other: the groups must agree, and every edge must be a true one.
    border = 1e-7 if threshold < 1 else 1e-12
    for pair, cosine in edges.items():
        assert expected[pair] == pytest.approx(cosine, abs=2e-7)
        assert cosine >= np.float32(threshold)
    _, first = np.unique(rows, axis=0, return_index=True)
    distinct = set(first.tolist())
    missing = {
        pair
        for pair, cosine in expected.items()
        if distinct.issuperset(pair) and cosine > threshold + border and pair not in edges
    }
    assert not missing
    assert components(edges, len(rows)) == components(
        {pair for pair, cosine in expected.items() if cosine > threshold - 1e-12}, len(rows)
    )


def components(pairs, rows):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    src, dst = np.array(sorted(pairs), dtype=int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(src)), (src, dst)), (rows, rows))
    labels = connected_components(graph, directed=False)[1]
    smallest = np.full(labels.max() + 1, rows)
    np.minimum.at(smallest, labels, np.arange(rows))
    return smallest[labels].tolist()


def test_join_group_tiles_find_what_the_whole_cell_finds(tmp_path, write_dataset):
    rows = near_copies()
    layout = build(tmp_path, write_dataset, [rows], cells=1, cells_per_row=1.0)
    whole = found(join_cells(layout, 0.9, contract=False).compute(scheduler="synchronous"))
    groups = plan_groups(layout, tile_rows=64)
    assert len(groups) > 20
    tiled = {}
    for group in groups:
        tiled.update(found(join_group(layout, group, 0.9).edges))
    tiled.update({pair: c for pair, c in whole.items() if c == 1 and pair not in tiled})
    assert tiled == whole
    assert sum(join_group(layout, g, 0.9).entry_count for g in groups) == len(
        np.unique(rows, axis=0)
    )


@pytest.mark.parametrize("cells", [4, 16])
def test_join_cells_in_many_cells_has_true_edges_and_finds_nearly_all(
    tmp_path, write_dataset, cells
):
    rows = near_copies(2000)
    layout = build(tmp_path, write_dataset, np.split(rows, 4), cells=cells)
    edges = found(join_cells(layout, 0.95, contract=False).compute(scheduler="synchronous"))
    expected = brute_force(rows, 0.95)
    assert set(edges) <= set(expected)
    assert np.mean(np.equal(components(edges, 2000), components(set(expected), 2000))) > 0.995


def test_join_group_contraction_keeps_the_components(tmp_path, write_dataset):
    rows = near_copies()
    layout = build(tmp_path, write_dataset, [rows], cells=5)
    for group in plan_groups(layout):
        edges = join_group(layout, group, 0.8).edges
        few = JoinLimits(batch_pairs=100)
        contracted = join_group(layout, group, 0.8, contract=spanning_edges, limits=few).edges
        assert len(contracted) < len(rows)
        for threshold in (0.8, 0.9, 0.99):
            assert components(set(found(edges[edges.similarity >= threshold])), 600) == components(
                set(found(contracted[contracted.similarity >= threshold])), 600
            )


def test_join_cells_mixed_dtypes_are_compared_as_stored(tmp_path, write_dataset):
    rows = near_copies(200, dtype="f2")
    layout = build(tmp_path, write_dataset, [rows[:100], rows[100:].astype("f8")], cells=1)
    edges = found(join_cells(layout, 0.9, contract=False).compute(scheduler="synchronous"))
    expected = brute_force(rows, 0.9)
    assert set(edges) <= set(expected)
    assert components(edges, 200) == components(set(expected), 200)


def test_join_cells_is_lazy_and_cells_never_depend_on_workers(tmp_path, write_dataset, no_compute):
    layout = build(tmp_path, write_dataset, [near_copies()], cells=5)
    with no_compute():
        edges = join_cells(layout, 0.9)
    assert edges.npartitions == len(plan_groups(layout)) + 1
    assert plan_groups(layout) == plan_groups(layout)
