import numpy as np
import pytest

from dask_dedup import build_cells, fit_pca, read_dataset
from dask_dedup.cells.candidates import DEFAULT_LIMITS, JoinLimits
from dask_dedup.cells.full_filter import add_tiles, full_codes
from dask_dedup.cells.join import join_group
from dask_dedup.cells.join_groups import plan_groups
from dask_dedup.vectors.cosines import cosine_pairs
from dask_dedup.vectors.int8_codes import code_rows, near_pairs


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def near_copies_of(rows, dim, share, seed=0):
    """Rows that share so much of their squared length; every fifth is nearly the one before."""
    rng = np.random.default_rng(seed)
    apart = unit(rng.normal(size=(rows, dim)))
    made = np.sqrt(share) * unit(rng.normal(size=dim)) + np.sqrt(1 - share) * apart
    made[5::5] = made[4:-1:5] + 0.1 * unit(rng.normal(size=(len(made[5::5]), dim)))
    return made.astype("f4")


def pairs_of(products):
    return {pair for i, j in products for pair in zip(i.tolist(), j.tolist(), strict=True)}


class RowsAtHand:
    """Of `Candidates` what `full_codes` asks for: each entry is the row of its number."""

    def __init__(self, rows, threshold, limits):
        self.limits, self.rows, self.threshold = limits, rows, np.float32(threshold)
        self.rank = np.arange(len(rows))

    def full_rows(self, ranks):
        return self.rows[ranks]


def passed_and_near(rows, least, limits=DEFAULT_LIMITS):
    full, limit = full_codes(RowsAtHand(rows, least, limits), np.arange(len(rows)))
    passed = pairs_of(near_pairs(full, full, limit, True))
    i, j = np.triu_indices(len(rows), 1)
    cosines = cosine_pairs(rows, rows, i, j)
    near = pairs_of([(i[cosines >= least], j[cosines >= least])])
    return passed, near, cosines


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("rank", [300, 30_000])
@pytest.mark.parametrize("dim", [3, 40, 512, 1100])
def test_full_codes_pass_every_pair(dim, rank, dtype):
    rows = (near_copies_of(700, dim, 0.9) * np.linspace(0.1, 9.0, 700)[:, None]).astype(dtype)
    i, j = np.triu_indices(len(rows), 1)
    least = np.sort(cosine_pairs(rows, rows, i, j))[-rank]  # a pair at the border
    passed, near, _ = passed_and_near(rows, least)
    assert len(near) >= rank
    assert near <= passed


def test_full_codes_pass_every_pair_beyond_the_largest_code():
    narrow = JoinLimits(full_spread=0.3)  # most coordinates lie beyond
    rows = near_copies_of(700, 40, 0.9)
    full, _ = full_codes(RowsAtHand(rows, 0.95, narrow), np.arange(len(rows)))
    assert (np.abs(full.codes.numpy()) == 127).mean() > 0.3
    passed, near, _ = passed_and_near(rows, 0.95, narrow)
    assert near <= passed


def test_full_codes_pass_few_pairs_below_the_threshold():
    rows = near_copies_of(700, 512, 0.9)
    passed, near, cosines = passed_and_near(rows, 0.95)
    assert 100 < len(near) <= len(passed) < 0.01 * len(cosines)
    assert (cosines > 0.85).all()  # no two rows differ much


def test_full_codes_use_no_more_coordinates_than_differ():
    widths = [
        full_codes(RowsAtHand(near_copies_of(700, 512, share), 0.95, JoinLimits()), np.arange(700))[
            0
        ].codes.shape[1]
        for share in (0.3, 0.85, 0.94)
    ]
    assert widths[0] == 64
    assert widths[0] < widths[1] < widths[2]


def test_full_codes_of_equal_rows_pass_all_pairs():
    passed, near, _ = passed_and_near(np.ones((5, 6), np.float32), 1.0)
    assert passed == near == pairs_of([np.triu_indices(5, 1)])


@pytest.fixture(scope="module")
def layout_of_near_copies(tmp_path_factory, write_dataset):
    """Rows in one cell whose projections on 2 axes are near each other."""
    folder = tmp_path_factory.mktemp("one-cell")
    data = read_dataset(write_dataset(folder / "data", np.split(near_copies_of(1500, 24, 0.85), 3)))
    return build_cells(data, fit_pca(data, 2), folder / "cells", cells=1, cells_per_row=1.0)


def joined(layout, tile_rows, limits, threshold=0.95):
    results = [
        join_group(layout, group, threshold, limits=limits)
        for group in plan_groups(layout, tile_rows)
    ]
    edges = {
        (src, dst): similarity
        for result in results
        for src, dst, similarity in result.edges.itertuples(index=False)
    }
    return edges, sum(result.candidates for result in results)


@pytest.mark.parametrize("tile_rows", [32_768, 200])
def test_join_with_the_full_dimension_filter_is_that_without(layout_of_near_copies, tile_rows):
    never = JoinLimits(full_share=2.0)  # more than there can be
    one_by_one, looked_at = joined(layout_of_near_copies, tile_rows, never)
    assert looked_at > 0.2 * 1500**2 / 2
    edges, candidates = joined(layout_of_near_copies, tile_rows, JoinLimits(full_rows=512))
    assert edges == one_by_one
    assert 250 < len(edges) <= candidates < 0.05 * looked_at


def test_add_tiles_without_entries_adds_nothing():
    none, projections = np.empty(0, np.int64), code_rows(np.ones((2, 4), np.int8))
    add_tiles(projections, 1, none, None, None)
    add_tiles(projections, 1, np.arange(2), none, None)
