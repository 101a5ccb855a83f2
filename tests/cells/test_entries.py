"""Entries merged to fewer files are the same entries; damaged ones are named."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from dask_dedup import build_cells, fit_pca, join_cells, read_dataset
from dask_dedup.cells.entries import merge_entries, plan_merges, read_cell_counts, read_entries
from dask_dedup.cells.layout_files import EntryFile
from dask_dedup.errors import CapacityError, DamagedError


def clustered(rows, dim=8):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(rows // 3, dim))
    return (centres[rng.integers(0, len(centres), rows)] + rng.normal(size=(rows, dim)) / 20) * 3


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_dataset):
    rows = clustered(1500).astype("f4")
    rows[[5, 700]] = np.nan
    path = tmp_path_factory.mktemp("entries") / "d"
    return read_dataset(write_dataset(path, np.split(rows, range(50, 1500, 50))))


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return build(data, tmp_path_factory.mktemp("plain") / "a")


@pytest.fixture
def layout(plain, tmp_path):
    """The same, to be damaged."""
    shutil.copytree(plain.folder, tmp_path / "a")
    copied = replace(plain, folder=str(tmp_path / "a"))
    copied.write_entry_files(
        [
            copied.entry_file(s, f.entries)
            for s, f in zip(copied.spans, plain.entry_files, strict=True)
        ]
    )
    return copied


def build(data, folder, **options):
    return build_cells(data, fit_pca(data, 6), folder, cells=20, span_rows=50, **options)


def files_of(*rows):
    starts = np.cumsum([0, *rows]).tolist()
    return [EntryFile("r", "o", s, s + n, 3 * n) for s, n in zip(starts, rows, strict=False)]


@pytest.mark.parametrize("most", [2, 3, 29])
def test_merged_entries_are_those_of_the_spans(data, plain, tmp_path, most):
    merged = build(data, tmp_path / "b", most_files=most)
    assert len(plain.entry_files) == 30
    assert len(merged.entry_files) <= most
    np.testing.assert_array_equal(read_cell_counts(merged), read_cell_counts(plain))
    for cells in [(0, plain.cells), (3, 4), (7, plain.cells)]:
        expected, found = read_entries(plain, *cells), read_entries(merged, *cells)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)
    edges = [
        join_cells(layout, 0.95, contract=False).compute().sort_values(["src", "dst"]).to_numpy()
        for layout in (plain, merged)
    ]
    np.testing.assert_array_equal(*edges)


@pytest.mark.parametrize("merge_bytes", [1, 1000, 1 << 30])
def test_merge_entries_by_ranges_of_any_size_is_the_same(layout, tmp_path, merge_bytes):
    (files, one), *_ = plan_merges(layout.entry_files, tmp_path, 10).tasks
    merge_entries(layout, files, one, merge_bytes)
    layout.write_entry_files(files)
    expected = read_entries(layout, 0, layout.cells)
    layout.write_entry_files([one])
    for before, after in zip(expected, read_entries(layout, 0, layout.cells), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("files", "tasks", "left"), [(64, 0, 64), (65, 1, 64), (100, 36, 64), (2314, 64, 64)]
)
def test_plan_merges_takes_few_files_together_and_leaves_few(tmp_path, files, tasks, left):
    before = files_of(*[10] * files)
    merges = plan_merges(before, tmp_path)
    assert (len(merges.tasks), len(merges.files)) == (tasks, left)
    assert max([len(group) for group, _ in merges.tasks], default=0) <= 64
    assert sum(file.entries for file in merges.files) == 30 * files
    stops = [file.row_stop for file in merges.files]
    assert [file.row_start for file in merges.files] == [0, *stops[:-1]]
    assert stops[-1] == 10 * files


def test_plan_merges_many_files_take_two_levels(tmp_path):
    merges = plan_merges(files_of(*[10] * 5000), tmp_path)
    assert len(merges.files) == 79  # 5,000 / 64, rounded up
    assert max(len(group) for group, _ in merges.tasks) <= 64
    assert len(plan_merges(merges.files, tmp_path).files) == 64


def test_plan_merges_more_rows_than_positions_can_count_are_refused(tmp_path):
    with pytest.raises(CapacityError, match="positions reach to 4294967296"):
        plan_merges(files_of(*[2**32 - 5] * 70), tmp_path)


@pytest.mark.parametrize("kind", ["entries", "offsets"])
def test_damaged_layout_is_named_by_its_path(layout, kind):
    path = layout.path(kind, layout.spans[4])
    good = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(good), 20):
        bad = bytearray(good)
        bad[position] ^= 16
        path.write_bytes(bad)
        with pytest.raises(DamagedError, match=rf"{kind}-00004\.bin: ") as caught:
            read_entries(layout, 0, layout.cells)
        assert caught.value.path == str(path)
    path.unlink()
    with pytest.raises(DamagedError, match=rf"{kind}-00004\.bin: is missing"):
        read_entries(layout, 0, layout.cells)


def test_offsets_of_another_span_do_not_fit(layout):
    first, second = (layout.path("offsets", span) for span in layout.spans[:2])
    first.write_bytes(second.read_bytes())
    entries = [file.entries for file in layout.entry_files[:2]]
    assert entries[0] != entries[1]
    with pytest.raises(DamagedError, match=f"does not fit the {entries[0]} entries beside it"):
        read_cell_counts(layout)
