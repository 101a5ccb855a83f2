import numpy as np
import pytest
import torch

from dask_dedup import build_cells, fit_pca, read_dataset
from dask_dedup.compress.verify import cosine_pairs, short_rows
from dask_dedup.search import crowd
from dask_dedup.search.crowd import full_factors
from dask_dedup.search.grid_filter import grid_rows
from dask_dedup.search.join import join_group, plan_groups
from dask_dedup.search.sign_filter import near_products

DTYPES = [torch.float32, torch.bfloat16]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def crowd_of(rows, dim, share, seed=0):
    """Rows that share so much of their squared length; every fifth is nearly the one before."""
    rng = np.random.default_rng(seed)
    apart = unit(rng.normal(size=(rows, dim)))
    made = np.sqrt(share) * unit(rng.normal(size=dim)) + np.sqrt(1 - share) * apart
    made[5::5] = made[4:-1:5] + 0.1 * unit(rng.normal(size=(len(made[5::5]), dim)))
    return made.astype("f4")


def pairs_of(products):
    return {pair for i, j in products for pair in zip(i.tolist(), j.tolist(), strict=True)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [3, 40, 512, 770])
def test_products_of_full_factors_pass_every_pair_and_few_others(dim, dtype):
    rows = crowd_of(700, dim, 0.9)
    short = short_rows(rows)
    i, j = np.triu_indices(len(rows), 1)
    cosines = cosine_pairs(rows, rows, i, j)
    least = np.sort(cosines)[-300]  # a pair at the border
    left, right = full_factors(short, float(least), dtype)
    passed = pairs_of(near_products(left, right, True))
    near = pairs_of([(i[cosines >= least], j[cosines >= least])])
    assert near <= passed
    margin = 0.003 if dtype == torch.float32 else 0.012
    assert passed <= pairs_of([(i[cosines >= least - margin], j[cosines >= least - margin])])


@pytest.fixture(scope="module")
def crowded_layout(tmp_path_factory, write_dataset):
    """Rows that 2 axes do not tell apart, in one cell."""
    folder = tmp_path_factory.mktemp("crowd")
    data = read_dataset(write_dataset(folder / "data", np.split(crowd_of(1500, 24, 0.85), 3)))
    return build_cells(data, fit_pca(data, 2), folder / "cells", cells=1, visits=1.0)


def joined(layout, threshold=0.95):
    results = [join_group(layout, group, threshold) for group in plan_groups(layout)]
    edges = {
        (src, dst): similarity
        for result in results
        for src, dst, similarity in result.edges.itertuples(index=False)
    }
    return edges, sum(result.candidates for result in results)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tile_rows", [32_768, 200])
def test_join_of_a_crowd_by_full_products_is_that_by_pairs(
    crowded_layout, monkeypatch, dtype, tile_rows
):
    monkeypatch.setattr("dask_dedup.search.join.TILE_ROWS", tile_rows)
    monkeypatch.setattr(crowd, "_quicker_dtype", lambda: dtype)
    monkeypatch.setattr(crowd, "_CROWDED", dict.fromkeys(DTYPES, 2.0))  # more than there can be
    one_by_one, looked_at = joined(crowded_layout)
    assert looked_at > 0.2 * 1500**2 / 2
    monkeypatch.undo()
    monkeypatch.setattr("dask_dedup.search.join.TILE_ROWS", tile_rows)
    monkeypatch.setattr(crowd, "_quicker_dtype", lambda: dtype)
    monkeypatch.setattr(crowd, "_ROWS_AT_ONCE", 512)
    edges, candidates = joined(crowded_layout)
    assert edges == one_by_one
    assert 250 < len(edges) <= candidates < 0.05 * looked_at


def test_add_tiles_without_records_adds_nothing():
    none, images = np.empty(0, np.int64), grid_rows(np.ones((2, 4), np.int8))
    crowd.add_tiles(images, 1, none, None, None)
    crowd.add_tiles(images, 1, np.arange(2), none, None)
