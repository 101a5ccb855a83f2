"""Types of two parts: one that holds all values of both, or a refusal before anything is run.

The oracle is the source: what pyarrow's ``to_pylist`` gives of the files.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import uuid
from decimal import Decimal
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dask_dedup.data.metadata import read_metadata, take_rows, to_pandas, unify_columns
from dask_dedup.data.metadata_footer import read_footer
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.errors import ColumnError


def write_parts(
    folder: Path, *arrays: pa.Array, statistics: bool = True
) -> tuple[list[Part], list[pa.Schema]]:
    parts, schemas = [], []
    for i, array in enumerate(arrays):
        path = str(folder / f"metadata_{i}.parquet")
        table = pa.table({"url": ["u"] * len(array), "caption": ["c"] * len(array), "x": array})
        pq.write_table(table, path, write_statistics=statistics)
        embeddings = EmbeddingFile("none.npy", len(array), 3, "<f4", False, 128)
        parts.append(Part(i, 0, path, embeddings))
        schemas.append(read_footer(path)[1])
    return parts, schemas


def same(one: Any, other: Any) -> bool:
    """Compare values: 1 is 1.0, NaN is NaN, -0.0 is not 0, a struct may have got null fields."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same(one.get(key), other.get(key)) for key in {*one, *other})
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    numbers = int, float, Decimal
    if isinstance(one, numbers) and isinstance(other, numbers):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return one == other


def carried(parts: list[Part], schemas: list[pa.Schema]) -> list[pa.Table]:
    """Return the column of each part after it was written and read again."""
    columns = unify_columns(parts, schemas)
    tables = []
    for part in parts:
        memory = io.BytesIO()
        pq.write_table(read_metadata(part, columns), memory)
        memory.seek(0)
        tables.append(pq.read_table(memory))
    return tables


def check_pair(folder: Path, *arrays: pa.Array, statistics: bool = True) -> pa.DataType | None:
    """Return the common type after checking each value; None where it is refused at the start."""
    parts, schemas = write_parts(folder, *arrays, statistics=statistics)
    sources = [pq.read_table(part.metadata_path)["x"].to_pylist() for part in parts]
    try:
        tables = carried(parts, schemas)
    except ColumnError as error:
        said = str(error)
        assert "'x'" in said
        assert "--drop-columns x goes on without it" in said
        assert "metadata_0.parquet" in said or "metadata_1.parquet" in said
        return None
    for table, source in zip(tables, sources, strict=True):
        assert all(map(same, source, table["x"].to_pylist())), (table["x"].type, source)
    kinds = {table.schema.field("x").type for table in tables}
    assert len(kinds) == 1
    return kinds.pop()


BIG = 2**60 + 1
UUIDS = [uuid.UUID(int=i).bytes for i in (5, 7)]


def numbers(kind: pa.DataType, *values: Any) -> pa.Array:
    return pa.array([*values, None], kind)


def categories(values: list, index: pa.DataType, ordered: bool = False) -> pa.Array:
    positions = pa.array([*range(len(values)), None], index)
    return pa.DictionaryArray.from_arrays(positions, values, ordered=ordered)


def struct(**children: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays(list(children.values()), list(children))


def lists(values: pa.Array) -> pa.Array:
    offsets = pa.array([0, len(values), None, len(values)], pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


int64, uint64, double = pa.int64(), pa.uint64(), pa.float64()
day, us, ns, ms = dt.datetime(2020, 1, 1), *map(pa.timestamp, ("us", "ns", "ms"))
text, view, large = pa.string(), pa.string_view(), pa.large_string()

PAIRS = [
    # integers
    (numbers(pa.int8(), 1), numbers(pa.int32(), 70_000), pa.int32()),
    (numbers(pa.int8(), -1), numbers(pa.uint8(), 255), pa.int16()),
    (numbers(pa.int64(), -1), numbers(pa.uint32(), 2**32 - 1), int64),
    (numbers(int64, 5), numbers(uint64, 2**64 - 1), uint64),
    (numbers(int64, -5), numbers(uint64, 2**63 - 1), int64),
    (numbers(int64, -5), numbers(uint64, 2**63), None),
    # floats
    (numbers(pa.float32(), 0.1, math.nan), numbers(double, 0.1, -0.0), double),
    (numbers(pa.int16(), -(2**15)), numbers(pa.float32(), 0.5), pa.float32()),
    (numbers(pa.int32(), 2**31 - 1), numbers(pa.float32(), 0.5), double),
    (numbers(pa.int8(), -128), numbers(pa.float16(), np.float16(0.5)), pa.float16()),
    (numbers(int64, 2**53), numbers(double, 0.5), double),
    (numbers(int64, 2**53 + 1), numbers(double, 0.5), None),
    (numbers(int64, 2**53 + 1), numbers(double, 7.0), int64),
    (numbers(int64, 2**53 + 1), numbers(double, -0.0), None),
    (numbers(int64, 2**53 + 1), numbers(double, math.nan), None),
    (numbers(int64, 2**53 + 1), numbers(double, math.inf), None),
    (numbers(int64, 2**53 + 1), numbers(double, 2.0**63), None),
    (numbers(uint64, 2**64 - 1), numbers(double, 2.0**63), uint64),
    (numbers(uint64, 2**64 - 1), numbers(double, -1.0), None),
    # decimals
    (numbers(pa.decimal128(38, 0), Decimal(10**19 + 1)), numbers(double, 1.0), pa.decimal128(38)),
    (numbers(pa.decimal128(38, 0), Decimal(10**19 + 1)), numbers(double, 0.5), None),
    (numbers(pa.decimal128(10, 0), Decimal(12345)), numbers(double, 0.5), double),
    (numbers(pa.decimal128(10, 2), Decimal("0.10")), numbers(double, 0.1), None),
    (numbers(pa.decimal128(5, 2), Decimal("1.25")), numbers(int64, BIG), pa.decimal128(21, 2)),
    (
        numbers(pa.decimal128(38, 2), Decimal("1.25")),
        numbers(pa.decimal128(10, 8), Decimal("0.00000001")),
        pa.decimal256(44, 8),
    ),
    # null, and nothing but null
    (pa.nulls(2), numbers(pa.date32(), dt.date(2020, 1, 1)), pa.date32()),
    (numbers(double), numbers(text, "a"), text),
    (numbers(double), categories(["a"], pa.int8()), pa.dictionary(pa.int8(), text)),
    (numbers(double), pa.array([[1], None]), pa.list_(int64)),
    (lists(pa.nulls(2)), lists(numbers(text, "a")), pa.list_(text)),
    # text
    (numbers(text, "a"), numbers(large, "b"), large),
    (numbers(text, "a"), numbers(view, "b"), text),
    (numbers(view, "a"), numbers(view, "b"), view),
    (lists(numbers(view, "a")), lists(numbers(large, "b")), pa.list_(large)),
    (struct(a=numbers(view, "a")), struct(a=numbers(text, "b")), pa.struct([("a", text)])),
    (pa.array(['{"a":1}', None], pa.json_()), numbers(text, '{"a":1}'), text),
    (lists(pa.array(["1"], pa.json_())), lists(numbers(text, "1")), pa.list_(text)),
    (pa.array(["1"], pa.json_()), pa.array(["2"], pa.json_()), pa.json_()),
    (numbers(text, "1"), numbers(int64, 1), None),
    (numbers(text, "1"), numbers(pa.binary(), b"1"), None),
    (pa.array(UUIDS, pa.uuid()), numbers(text, str(uuid.UUID(int=5))), None),
    (pa.array(UUIDS, pa.uuid()), numbers(pa.binary(16), UUIDS[0]), None),
    # bytes
    (numbers(pa.binary(2), b"ab"), numbers(pa.binary(3), b"abc"), pa.binary()),
    (numbers(pa.binary(), b"ab"), numbers(pa.large_binary(), b"a"), pa.large_binary()),
    (numbers(pa.binary_view(), b"ab"), numbers(pa.binary(), b"a"), pa.binary()),
    # categories
    (
        categories(["a"], pa.int8()),
        categories(["b", "c"], pa.int16()),
        pa.dictionary(pa.int16(), text),
    ),
    (
        categories(["s", "m"], pa.int8(), True),
        categories(["m", "s"], pa.int8(), True),
        pa.dictionary(pa.int8(), text, True),
    ),
    (
        categories(["a"], pa.int8()),
        categories([str(i) for i in range(200)], pa.uint8()),
        pa.dictionary(pa.int32(), text),
    ),
    (categories(["a"], pa.int8()), numbers(text, "b"), text),
    (lists(categories(["a"], pa.int8())), lists(numbers(text, "b")), pa.list_(text)),
    # times
    (numbers(us, day), numbers(ms, day), us),
    (numbers(us, dt.datetime(9999, 12, 31)), numbers(pa.timestamp("ns"), 1000), us),
    (numbers(us, dt.datetime(9999, 12, 31)), numbers(pa.timestamp("ns"), 1001), None),
    (numbers(us, day), numbers(pa.timestamp("ns"), 1001), ns),
    (
        numbers(pa.timestamp("us", "Etc/UTC"), 1),
        numbers(pa.timestamp("us", "UTC"), 2),
        pa.timestamp("us", "UTC"),
    ),
    (numbers(pa.timestamp("us", "Europe/Paris"), 1), numbers(pa.timestamp("us", "UTC"), 2), None),
    (numbers(us, day), numbers(pa.timestamp("us", "UTC"), 2), None),
    (numbers(us, day), numbers(pa.date32(), day.date()), None),
    (numbers(pa.time32("ms"), 1), numbers(pa.time64("ns"), 1), pa.time64("ns")),
    (numbers(pa.duration("s"), 2**34), numbers(pa.duration("ns"), 1001), None),
    (numbers(pa.duration("s"), 2), numbers(pa.duration("ms"), 1), pa.duration("ms")),
    (numbers(pa.bool_(), True), numbers(pa.int8(), 1), None),
    # nested
    (
        struct(id=numbers(int64, BIG)),
        struct(id=numbers(double, 1.0)),
        pa.struct([("id", int64)]),
    ),
    (struct(id=numbers(int64, BIG)), struct(id=numbers(double, 1.5)), None),
    (
        struct(a=numbers(int64, 1)),
        struct(b=numbers(text, "x"), a=numbers(pa.int8(), 1)),
        pa.struct([("a", int64), ("b", text)]),
    ),
    (lists(numbers(int64, -BIG)), lists(numbers(uint64, 1)), pa.list_(int64)),
    (
        pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
        pa.array([[1, 2, 3]], pa.list_(pa.int16(), 3)),
        pa.list_(pa.int16()),
    ),
    (pa.array([[1]], pa.large_list(pa.int8())), pa.array([[1]]), pa.large_list(int64)),
    (
        pa.array([[("k", 1)], None], pa.map_(text, pa.int8())),
        pa.array([[("k", 0.5)], []], pa.map_(large, double)),
        pa.map_(large, double),
    ),
    (
        pa.array([[1]], pa.list_(pa.field("x", int64, nullable=False))),
        pa.array([[None]], pa.list_(int64)),
        pa.list_(int64),
    ),
    (pa.array([[1], None]), numbers(int64, 1), None),
    (struct(a=numbers(int64, 1)), pa.array([[1]]), None),
]


def id_of(value: Any) -> str:
    return str(value.type if isinstance(value, pa.Array) else value)


@pytest.mark.parametrize(("first", "second", "common"), PAIRS, ids=id_of)
def test_merge_two_types_have_the_stated_one_in_common(tmp_path, first, second, common):
    for order, folder in (((first, second), "a"), ((second, first), "b")):
        (tmp_path / folder).mkdir()
        got = check_pair(tmp_path / folder, *order)
        if common is not None and pa.types.is_struct(common):
            assert {f.name: f.type for f in got} == {f.name: f.type for f in common}
        else:
            assert got == common


@pytest.mark.parametrize(("first", "second", "common"), PAIRS, ids=id_of)
def test_merge_footers_without_statistics_change_nothing(tmp_path, first, second, common):
    got = check_pair(tmp_path, first, second, statistics=False)
    assert (got is None) == (common is None)


@pytest.mark.parametrize("inside", [view, pa.binary_view()])
def test_views_in_structs_are_plain_so_that_long_parts_can_be_written(tmp_path, inside):
    """pyarrow cannot cut them, as it does where a table has more rows than a row group."""
    plain = text if inside == view else pa.binary()
    array = struct(a=numbers(plain, *["a", "b"] * 3).cast(inside))
    got = check_pair(tmp_path, array, array)
    assert got == pa.struct([("a", plain)])
    (tmp_path / "top").mkdir()
    assert check_pair(tmp_path / "top", array.field(0), array.field(0)) == inside


def test_merge_values_are_read_only_where_footers_do_not_suffice(tmp_path, caplog):
    caplog.set_level("INFO", "dask_dedup")
    arrays = numbers(int64, 5), numbers(uint64, 2**63)
    (tmp_path / "logged").mkdir()
    check_pair(tmp_path / "logged", *arrays)
    assert not caplog.records
    check_pair(tmp_path, *arrays, statistics=False)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("column 'x' is read before the run")


BROAD = [
    pa.nulls(2),
    numbers(pa.bool_(), True),
    *(numbers(kind, 1, 100) for kind in (pa.int8(), pa.uint16(), pa.int32(), int64, uint64)),
    numbers(int64, -BIG),
    numbers(uint64, 2**64 - 1),
    *(numbers(kind, 0.1, 2) for kind in (pa.float16(), pa.float32(), double)),
    numbers(double, 1.0),
    numbers(double),
    *(numbers(kind, Decimal("1.5")) for kind in (pa.decimal32(5, 2), pa.decimal128(38, 1))),
    numbers(pa.decimal256(76, 10), Decimal("1.5")),
    *(numbers(kind, "a", "ü") for kind in (text, large, view)),
    *(numbers(kind, b"ab") for kind in (pa.binary(), pa.large_binary(), pa.binary(2))),
    numbers(pa.binary_view(), b"\xff"),
    *(numbers(kind, day) for kind in (ms, us, ns, pa.timestamp("us", "UTC"), pa.date32())),
    numbers(us, dt.datetime(9999, 12, 31)),
    numbers(pa.timestamp("ns", "Asia/Tokyo"), 12345),
    *(numbers(kind, 5) for kind in (pa.time32("ms"), pa.time64("ns"), pa.duration("s"))),
    numbers(pa.duration("ns"), 5),
    pa.array([[1], None], pa.list_view(pa.int8())),
    pa.array([[1], None], pa.large_list_view(pa.int8())),
    categories(["a", "b"], pa.int8()),
    categories(["a", "b"], pa.int32(), True),
    categories([b"a", b"b"], pa.int8()),
    pa.array(UUIDS, pa.uuid()),
    pa.array(['{"a":1}', None], pa.json_()),
    pa.ExtensionArray.from_storage(pa.bool8(), numbers(pa.int8(), 1)),
    pa.ExtensionArray.from_storage(pa.opaque(pa.int8(), "x", "y"), numbers(pa.int8(), 1)),
    pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2]), pa.array([[1, 2]], pa.list_(pa.float32(), 2))
    ),
]


def as_map(array: pa.Array) -> pa.Array:
    keys = pa.array([f"k{i}" for i in range(len(array))])
    return pa.MapArray.from_arrays(pa.array([0, len(array)], pa.int32()), keys, array)


def as_struct(array: pa.Array) -> pa.Array:
    return struct(k=numbers(pa.int8(), *range(len(array) - 1)), v=array)


SHAPES = {
    "flat": lambda array: array,
    "lists": lambda array: lists(as_struct(array)),
    "maps": lambda array: as_struct(as_map(array)),
}


@pytest.mark.parametrize("shape", ["flat", "lists", pytest.param("maps", marks=pytest.mark.slow)])
def test_merge_no_pair_of_types_fails_late_or_changes_a_value(tmp_path, shape):
    """Each part lies on disk once; each pair of parts is a data set."""
    files = []
    arrays = BROAD if shape == "flat" else BROAD[::2]
    written = [array for array in arrays if shape != "lists" or "view" not in str(array.type)]
    for i, array in enumerate(written):
        (tmp_path / str(i)).mkdir()
        files.append(write_parts(tmp_path / str(i), SHAPES[shape](array)))
    sources = [pq.read_table(parts[0].metadata_path)["x"].to_pylist() for parts, _ in files]
    merged = 0
    for pair in combinations_with_replacement(range(len(written)), 2):
        i, j = pair if sum(pair) % 2 else pair[::-1]
        parts = [*files[i][0], *files[j][0]]
        try:
            columns = unify_columns(parts, [*files[i][1], *files[j][1]])
        except ColumnError:
            assert i != j, written[i].type
            continue
        merged += 1
        for k, part in ((i, parts[0]), (j, parts[1])):
            table = read_metadata(part, columns)
            assert all(map(same, sources[k], table["x"].to_pylist())), (written[i], written[j])
            take_rows(table, pa.array([0]))
            to_pandas(table)
            memory = io.BytesIO()
            pq.write_table(table, memory)
            memory.seek(0)
            back = pq.read_table(memory)
            assert back["x"].type == columns.schema.field("x").type
            assert all(map(same, sources[k], back["x"].to_pylist()))
    assert merged >= 2 * len(written) - 1  # each with itself, and with null


@settings(max_examples=30)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=1, max_size=4),
    st.lists(st.integers(0, 2**64 - 1) | st.none(), min_size=1, max_size=4),
    st.lists(
        st.integers(-(2**65), 2**65).map(float) | st.floats() | st.none(), min_size=1, max_size=4
    ),
    st.booleans(),
)
def test_merge_any_numbers_keep_their_values_or_are_refused(
    tmp_path_factory, signed, unsigned, floats, statistics
):
    arrays = pa.array(signed, int64), pa.array(unsigned, uint64), pa.array(floats, double)
    folder = tmp_path_factory.mktemp("numbers")
    check_pair(folder, arrays[0], arrays[1], statistics=statistics)
    check_pair(folder, arrays[0], arrays[2], statistics=statistics)
    check_pair(folder, *arrays, statistics=statistics)
