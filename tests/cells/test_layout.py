import numpy as np
import pandas as pd
import pytest

from dask_dedup import build_cells, fit_pca, read_dataset
from dask_dedup.cells.entries import read_cell_counts, read_entries
from dask_dedup.cells.layout import layout_span
from dask_dedup.cells.leaders import load_leaders
from dask_dedup.data.finder_files import read_invalid, read_linked


def build(folder, path, **options):
    data = read_dataset(path)
    return build_cells(data, fit_pca(data, 6), folder, **options)


def clustered(rows, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(20, dim))[rng.integers(0, 20, rows)] + rng.normal(size=(rows, dim)) / 5


def all_entries(layout):
    return read_entries(layout, 0, layout.cells)


def test_layout_every_usable_distinct_row_is_in_at_least_one_cell(tmp_path, write_dataset):
    rows = clustered(3000).astype("f4")
    rows[5] = np.nan
    rows[6] = 0
    rows[2000] = rows[7] = rows[2]
    layout = build(
        tmp_path / "cells", write_dataset(tmp_path / "d", np.split(rows, 3)), cells=30, span_rows=1
    )
    entries = all_entries(layout)
    usable = np.setdiff1d(np.arange(3000), [5, 6, 7])  # 2000 lies in another span than 2
    np.testing.assert_array_equal(np.unique(entries.row_ids), usable)
    np.testing.assert_array_equal(np.diff(entries.bounds), read_cell_counts(layout))
    cell = np.repeat(np.arange(layout.cells), np.diff(entries.bounds))
    pairs = np.stack([cell, entries.row_ids])
    assert len(np.unique(pairs, axis=1).T) == len(cell)  # no row twice in a cell
    assert (np.diff(cell * 10_000 + entries.row_ids) > 0).all()  # by cell, then by row


def near_copies_and_others(rng, near_copies=2000, dim=8):
    centre = rng.normal(size=dim)
    rows = [centre + rng.normal(size=(near_copies, dim)) * 0.01, rng.normal(size=(4000, dim))]
    return rng.permutation(np.concatenate(rows)).astype("f4")


def test_layout_members_of_a_dense_group_visit_home_and_are_linked(tmp_path, write_dataset):
    rows = near_copies_and_others(np.random.default_rng(0))
    path = write_dataset(tmp_path / "d", np.split(rows, 3))
    layout = build(tmp_path / "cells", path, cells=30)
    leaders = load_leaders(layout.leaders_path).row_ids
    assert len(leaders) >= 1
    links = pd.concat([read_linked(layout, span) for span in layout.spans])
    wide = rows.astype("f8") / np.linalg.norm(rows, axis=1, keepdims=True)
    exact = (wide[links["src"]] * wide[links["dst"]]).sum(axis=1)
    np.testing.assert_allclose(links["similarity"], exact, atol=1e-7)
    near = (wide @ wide[leaders].T).astype("f4") >= np.float32(0.999)
    members = np.setdiff1d(np.flatnonzero(near.any(axis=1)), leaders)
    linked = np.where(np.isin(links["src"], leaders), links["dst"], links["src"])
    np.testing.assert_array_equal(np.sort(linked), members)
    entries = np.bincount(all_entries(layout).row_ids, minlength=len(rows))
    assert (entries[members] == 1).all()
    assert entries.min() == 1
    assert entries[leaders].max() > 1
    others = np.setdiff1d(np.arange(len(rows)), members)
    assert entries[others].mean() == pytest.approx(4.5, rel=0.15)


def test_layout_without_dense_groups_links_equal_rows_only(tmp_path, write_dataset):
    rows = near_copies_and_others(np.random.default_rng(0))
    path = write_dataset(tmp_path / "d", [rows])
    layout = build(tmp_path / "cells", path, cells=30, dense_groups=False)
    assert len(load_leaders(layout.leaders_path).row_ids) == 0
    assert read_linked(layout, layout.spans[0]).empty


def test_layout_identical_and_invalid_rows_are_left_out(tmp_path, write_dataset):
    rows = clustered(100).astype("f2")
    rows[[10, 30, 90]] = rows[3]
    rows[50] = np.inf
    path = write_dataset(tmp_path / "d", [rows[:60], rows[60:]])
    layout = build(tmp_path / "cells", path, span_rows=1)
    first, second = (read_linked(layout, span) for span in layout.spans)
    assert first.to_numpy().tolist() == [[3, 10, 1], [3, 30, 1]]
    assert second.empty
    assert read_invalid(layout, layout.spans[0]).to_numpy().tolist() == [[50, 2]]


def test_layout_counts_add_up(tmp_path, write_dataset):
    rows = clustered(500).astype("f4")
    rows[10] = rows[20]
    rows[30] = 0
    layout = build(tmp_path / "cells", write_dataset(tmp_path / "d", [rows]))
    counts = layout_span(layout, layout.spans[0])
    assert (counts.rows, counts.invalid, counts.identical, counts.distinct) == (500, 1, 1, 498)
    assert counts.entries == len(all_entries(layout).row_ids)


@pytest.mark.parametrize("cuts", [[], [1], [1500, 1500], [700, 701, 2999]])
def test_layout_does_not_depend_on_the_parts(tmp_path, write_dataset, cuts):
    rows = clustered(3000).astype("f4")
    whole = build(tmp_path / "one", write_dataset(tmp_path / "a", [rows]), cells=30)
    cut = build(tmp_path / "two", write_dataset(tmp_path / "b", np.split(rows, cuts)), cells=30)
    for span in cut.spans:
        layout_span(cut, span, block_rows=777)  # written over
    expected, entries = all_entries(whole), all_entries(cut)
    np.testing.assert_array_equal(entries.bounds, expected.bounds)
    np.testing.assert_array_equal(entries.row_ids, expected.row_ids)
    np.testing.assert_array_equal(entries.content, expected.content)
    np.testing.assert_allclose(entries.codes, expected.codes, atol=1)  # rounded either way


def test_read_entries_range_equals_its_slice(tmp_path, write_dataset):
    rows = clustered(2000).astype("f4")
    layout = build(tmp_path / "cells", write_dataset(tmp_path / "d", np.split(rows, 4)), cells=20)
    every, some = all_entries(layout), read_entries(layout, 5, 9)
    inside = slice(*every.bounds[[5, 9]])
    np.testing.assert_array_equal(some.row_ids, every.row_ids[inside])
    np.testing.assert_array_equal(some.content, every.content[inside])
    np.testing.assert_array_equal(some.codes, every.codes[inside])
    np.testing.assert_array_equal(some.bounds, every.bounds[5:10] - every.bounds[5])


def test_layout_equal_hashes_of_different_rows_are_not_taken_for_equal(
    tmp_path, write_dataset, same_hash
):
    rows = clustered(50).astype("f4")
    rows[7], rows[20] = same_hash(rows[0]), rows[0]
    layout = build(tmp_path / "cells", write_dataset(tmp_path / "d", [rows]))
    assert read_linked(layout, layout.spans[0]).to_numpy().tolist() == [[0, 20, 1]]
    assert len(np.unique(all_entries(layout).row_ids)) == 49


@pytest.mark.parametrize("equal", [100, 2000])
def test_layout_of_nearly_equal_rows_gives_each_a_cell(tmp_path, write_dataset, equal):
    """K-means leaves coarse cells without a row; no row may end there."""
    rows = np.ones((2000, 8), np.float32) + np.eye(8, dtype=np.float32)[0]
    rows[equal:] += clustered(2000 - equal).astype("f4") * 1e-5
    rows[: equal // 2] *= 1 + np.arange(equal // 2, dtype=np.float32)[:, None] * 1e-6
    layout = build(tmp_path / "cells", write_dataset(tmp_path / "d", [rows]), cells=100)
    distinct = len(np.unique(rows, axis=0))
    assert len(np.unique(all_entries(layout).row_ids)) == distinct


def test_build_cells_with_hardly_a_usable_row(tmp_path, write_dataset):
    rows = np.full((6000, 8), np.nan, np.float32)
    rows[17] = 1
    layout = build(tmp_path / "cells", write_dataset(tmp_path / "d", [rows]))
    assert all_entries(layout).row_ids.tolist() == [17]
