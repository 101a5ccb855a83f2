"""Times stored as INT96, and what footers say of values."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.data.metadata import read_metadata, unify_columns
from dask_dedup.data.metadata_check import ColumnStatistics
from dask_dedup.data.metadata_columns import MetadataColumns
from dask_dedup.data.metadata_footer import read_footer
from dask_dedup.data.metadata_leaves import Branch
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.errors import ColumnError, UnreadableError

OUTSIDE = [
    dt.datetime(9999, 12, 31),
    dt.datetime(1, 1, 1),
    None,
    dt.datetime(2020, 1, 1, 1, 1, 1, 1),
]
outside, near = (
    pa.array(OUTSIDE, pa.timestamp("us")),
    pa.array([1_000, None, -7_000], pa.timestamp("ns")),
)
fine = pa.array([1_001, None], pa.timestamp("ns"))


def part_of(folder: Path, index: int, table: pa.Table, spark: bool = False) -> Part:
    path = str(folder / f"metadata_{index}.parquet")
    if spark:
        table = table.replace_schema_metadata({"org.apache.spark.version": "3.5.1"})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    file = EmbeddingFile("none.npy", table.num_rows, 3, "<f4", False, 128)
    return Part(index, 0, path, file)


def unify(parts: list[Part]) -> MetadataColumns:
    return unify_columns(parts, [read_footer(part.metadata_path)[1] for part in parts])


def table(x: pa.Array, **more: pa.Array) -> pa.Table:
    return pa.table({"url": ["u"] * len(x), "caption": ["c"] * len(x), "x": x, **more})


@pytest.mark.parametrize(
    ("arrays", "unit"),
    [
        ((outside, outside), "us"),
        ((near, outside), "us"),
        ((fine, near), "ns"),
        ((near, near), "us"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_int96_times_are_read_in_the_unit_that_keeps_them(tmp_path, arrays, unit, nested):
    parts = []
    for i, array in enumerate(arrays):
        x = array
        if nested:
            x = pa.StructArray.from_arrays(
                [
                    pa.array(range(len(array))),
                    pa.array([[v] for v in array.to_pylist()], pa.list_(array.type)),
                ],
                ["k", "v"],
            )
        parts.append(part_of(tmp_path, i, table(x)))
    columns = unify(parts)
    assert columns.int96_unit == unit
    for part, array in zip(parts, arrays, strict=True):
        read = read_metadata(part, columns)["x"]
        if nested:
            read = pa.array([v["v"][0] for v in read.to_pylist()], pa.timestamp(unit))
        assert read.type == pa.timestamp(unit)
        # numpy's own arithmetic: what was put in, in the unit
        wanted = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
        got = read.cast(pa.int64()).to_numpy(zero_copy_only=False)
        factor = {"us": 1, "ns": 1000}
        np.testing.assert_array_equal(wanted * factor[unit], got * factor[array.type.unit])


def test_int96_times_that_no_unit_holds_are_refused_by_name(tmp_path):
    parts = [part_of(tmp_path, 0, table(fine)), part_of(tmp_path, 1, table(outside))]
    with pytest.raises(
        ColumnError,
        match=r"metadata_1\.parquet: column 'x', stored as INT96, has times outside the years 1677 "
        r"to 2262, and .*metadata_0\.parquet: column 'x' has nanoseconds.*--drop-columns x",
    ):
        unify(parts)


def test_int96_of_spark_has_microseconds_and_is_not_read(tmp_path, caplog):
    caplog.set_level("INFO", "dask_dedup")
    parts = [part_of(tmp_path, i, table(outside), spark=True) for i in range(2)]
    columns = unify(parts)
    assert not caplog.records
    assert read_metadata(parts[1], columns)["x"].to_pylist() == OUTSIDE
    parts.append(part_of(tmp_path, 2, table(near)))
    assert unify(parts).int96_unit == "us"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("column 'x' is read before the run: it is stored as INT96")


def test_int96_beside_timestamps_is_one_column(tmp_path):
    plain = table(pa.array([5, None], pa.timestamp("ms")))
    parts = [part_of(tmp_path, 0, table(outside)), part_of(tmp_path, 1, plain)]
    pq.write_table(plain, parts[1].metadata_path)
    columns = unify(parts)
    assert columns.schema.field("x").type == pa.timestamp("us")
    assert read_metadata(parts[1], columns)["x"].to_pylist() == plain["x"].to_pylist()


def test_int96_that_is_dropped_is_neither_read_nor_refused(tmp_path, caplog):
    caplog.set_level("INFO", "dask_dedup")
    parts = [part_of(tmp_path, 0, table(fine)), part_of(tmp_path, 1, table(outside))]
    schemas = [read_footer(part.metadata_path)[1] for part in parts]
    assert unify_columns(parts, schemas, dropped=["x"]).schema.names == ["url", "caption"]
    assert not caplog.records


LEAVES = {
    "integers": (pa.array([5, None, -3]), -3, 5),
    "great ones": (pa.array([2**64 - 1, 1], pa.uint64()), 1, 2**64 - 1),
    "times": (pa.array([2**62, -(2**62)], pa.timestamp("us")), -(2**62), 2**62),
    "spans": (pa.array([7, None], pa.duration("s")), 7, 7),
    "null": (pa.array([None, None], pa.int64()), None, None),
}


@pytest.mark.parametrize(("array", "low", "high"), LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("shape", ["flat", "list", "struct", "map"])
def test_bounds_are_those_of_the_values_wherever_they_stand(
    tmp_path, array, low, high, statistics, shape
):
    count = len(array)
    offsets = pa.array([0, count], pa.int32())
    x, leaf = {
        "flat": (array, 0),
        "list": (pa.ListArray.from_arrays(offsets, array), 0),
        "struct": (pa.StructArray.from_arrays([pa.array(["a"] * count), array], ["k", "v"]), 1),
        "map": (pa.MapArray.from_arrays(offsets, pa.array(["a", "b", "c"][:count]), array), 1),
    }[shape]
    path = str(tmp_path / "metadata_0.parquet")
    before = pa.array([{"a": [1], "b": 2}] * len(x))
    pq.write_table(pa.table({"w": before, "x": x}), path, write_statistics=statistics)
    part = Part(0, 0, path, EmbeddingFile("none.npy", len(x), 3, "<f4", False, 128))
    statistics = ColumnStatistics(("x",), [[part]])
    branch = Branch(pa.field("v", array.type), 0, leaf)
    assert statistics.bounds(branch) == (None if low is None else (low, high))
    assert statistics.are_null(branch) == (low is None)


def test_statistics_of_a_file_that_is_gone_name_it(tmp_path):
    part = Part(0, 0, str(tmp_path / "no.parquet"), EmbeddingFile("n", 1, 3, "<f4", False, 128))
    with pytest.raises(UnreadableError, match=r"no\.parquet: cannot be read"):
        ColumnStatistics(("x",), [[part]]).are_null(Branch(pa.field("x", pa.int8()), 0, 0))
