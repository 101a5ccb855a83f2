"""Files of results by row: against the table that was written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dask_dedup.errors import DamagedError, InputError
from dask_dedup.results.cluster_files import list_files, read_partition, text_equals, to_frame

CUTS = [0, 5, 5, 18, 30]  # the second file is empty


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "row_id": np.arange(30),
            "cluster_id": rng.integers(0, 4, 30),
            "is_valid": rng.random(30) > 0.5,
            "witness_row_id": pa.array(range(30), mask=np.arange(30) % 3 == 0),
            "url": [f"u{i % 7}" for i in range(30)],
            "a.b": pa.array(range(30), pa.int8()),
        }
    )


@pytest.fixture
def folder(table, tmp_path):
    names = ["part-00000", "part-00001", "part-99999", "part-100000"]
    for name, start, stop in zip(names, CUTS, CUTS[1:], strict=False):
        part = table.slice(start, stop - start)
        pq.write_table(part, tmp_path / f"{name}.parquet", row_group_size=3)
    return tmp_path


def test_list_files_knows_which_rows_are_where(table, folder):
    files = list_files(folder, 30)
    assert files.starts == tuple(CUTS)
    assert files.rows == 30
    assert files.filled == [0, 2, 3]
    assert files.own_columns == table.column_names[:4]
    assert [files.file_of(row) for row in (0, 4, 5, 17, 18, 29)] == [0, 0, 2, 2, 3, 3]


def test_list_files_refuses_other_rows_and_no_files(folder, tmp_path):
    with pytest.raises(DamagedError, match="its files have 30 rows, and the run had 31"):
        list_files(folder, 31)
    with pytest.raises(DamagedError, match="none: has no parquet files"):
        list_files(tmp_path / "none")


def test_take_returns_rows_of_any_files_and_row_groups(table, folder):
    files = list_files(folder)
    for rows in ([0], [29], [4, 5], [0, 2, 3, 17, 18, 20, 29], list(range(30)), []):
        expected = table.take(pa.array(rows, pa.int64()))
        assert files.take(np.array(rows, np.int64)).equals(expected)
        names = ["cluster_id", "witness_row_id"]
        assert files.take(np.array(rows, np.int64), names).equals(expected.select(names))


def test_find_returns_what_a_filter_of_the_table_does(table, folder):
    files, names = list_files(folder), ["row_id", "a.b"]
    for wanted in (pc.field("cluster_id") == 2, pc.field("url") == "u3", pc.field("a.b") > 99):
        found = files.find(wanted, names)
        assert found.equals(table.filter(wanted).select(names))


def test_rows_of_clusters_are_those_with_their_ids(table, folder):
    files, clusters = list_files(folder), table["cluster_id"].to_numpy()
    for wanted in ([0], [1, 3], [0, 1, 2, 3]):
        expected = np.flatnonzero(np.isin(clusters, wanted))
        found = files.rows_of_clusters(np.array(wanted), len(expected))
        assert found.tolist() == expected.tolist()
        assert found.dtype == np.int64


def test_rows_of_clusters_looks_between_the_first_and_the_last_of_them(tmp_path):
    """Files that are never looked at may be gone; sixteen at most are looked at together."""
    for i in range(40):
        table = pa.table({"row_id": [i], "cluster_id": [7 if i in (7, 9) else i], "url": ["u"]})
        pq.write_table(table, tmp_path / f"part-{i:05d}.parquet")
    files = list_files(tmp_path)
    for i in (*range(7), *range(23, 40)):
        (tmp_path / f"part-{i:05d}.parquet").unlink()
    assert files.rows_of_clusters(np.array([7]), 2).tolist() == [7, 9]
    with pytest.raises(DamagedError, match=r"part-00023\.parquet: is missing"):
        files.rows_of_clusters(np.array([7]), 3)


def test_find_in_a_damaged_file_names_it(folder):
    files = list_files(folder)
    path = folder / "part-99999.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"part-99999\.parquet: is damaged"):
        files.find(pc.field("cluster_id") >= 0, ["row_id"])


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_text_equals_finds_text_of_any_type(kind, tmp_path):
    values = ["a", None, "b", "a"]
    column = (
        pa.array(values).cast(kind)
        if not pa.types.is_dictionary(kind)
        else pa.array(values).dictionary_encode()
    )
    table = pa.table({"row_id": range(4), "url": column})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    files = list_files(tmp_path)
    found = files.find(text_equals(files, "url", "a"), ["row_id"])
    assert found["row_id"].to_pylist() == [0, 3]


def test_text_equals_of_what_holds_no_text(tmp_path):
    table = pa.table({"row_id": range(3), "url": pa.nulls(3), "width": range(3)})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    files = list_files(tmp_path)
    assert len(files.find(text_equals(files, "url", "a"), ["row_id"])) == 0
    with pytest.raises(InputError, match="column 'width' is int64, in which no text can be sought"):
        text_equals(files, "width", "a")


def test_read_partition_reads_the_columns_in_the_order_that_is_asked_for(table, folder):
    path = str(folder / "part-99999.parquet")
    for names in (["url"], ["a.b", "cluster_id"], []):
        frame = read_partition(path, names)
        assert frame.columns.tolist() == names
        assert frame.index.tolist() == list(range(5, 18))
        expected = table.slice(5, 13).select(names).to_pydict()
        assert {name: frame[name].tolist() for name in names} == expected


def test_to_frame_has_one_type_a_column_whatever_is_missing(table):
    for some in (table, table.slice(0, 1), table.slice(1, 1), table.slice(0, 0)):
        frame = to_frame(some)
        assert frame.columns.tolist() == table.column_names
        assert frame["cluster_id"].dtype == np.int64
        assert frame["is_valid"].dtype == np.bool_
        assert frame["witness_row_id"].dtype == pd.ArrowDtype(pa.int64())
        assert frame["a.b"].dtype == pd.ArrowDtype(pa.int8())
    assert to_frame(table)["witness_row_id"].isna().tolist() == [i % 3 == 0 for i in range(30)]
