"""Metadata columns: found, unified between parts, read as they are."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.data.metadata import MetadataColumns, read_metadata, to_pandas, unify_columns
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.errors import ColumnError, InputError, UnreadableError
from dask_dedup.schema import STRING


def part_of(folder: Path, table: pa.Table, index: int = 0) -> Part:
    path = folder / f"metadata_{index}.parquet"
    pq.write_table(table, path)
    embeddings = EmbeddingFile("none.npy", table.num_rows, 3, "<f4", False, 128)
    return Part(index, 0, str(path), embeddings)


def unify(
    folder: Path, *tables: pa.Table, url: str | None = None, caption: str | None = None
) -> tuple[list[Part], MetadataColumns]:
    parts = [part_of(folder, table, i) for i, table in enumerate(tables)]
    return parts, unify_columns(parts, [table.schema for table in tables], url, caption)


def texts(*names: str) -> pa.Table:
    return pa.table({name: [f"{name} 0", None] for name in names})


EXACT = {
    "null": pa.nulls(3),
    "bool": pa.array([True, None, False]),
    "int8": pa.array([1, None, -128], pa.int8()),
    "uint64": pa.array([1, None, 2**64 - 1], pa.uint64()),
    "int64": pa.array([2**53 + 1, None, -(2**63)], pa.int64()),
    "float16": pa.array(np.array([1.5, 2, np.nan], np.float16)),
    "float32": pa.array([0.1, None, np.inf], pa.float32()),
    "decimal": pa.array([decimal.Decimal("1.23"), None, decimal.Decimal("-9.99")]),
    "date": pa.array([datetime.date(2022, 3, 31), None, datetime.date(1, 1, 1)]),
    "time": pa.array([1, None, 3], pa.time64("us")),
    "timestamp": pa.array([1, None, 3], pa.timestamp("ns", "UTC")),
    "duration": pa.array([1, None, 3], pa.duration("s")),
    "binary": pa.array([b"\xff\x00", None, b""]),
    "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "large": pa.array(["x", None, ""], pa.large_string()),
    "list": pa.array([[1, None], None, []], pa.list_(pa.int16())),
    "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": []}]),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
    "dotted.name": pa.array([1, None, 3]),
    "": pa.array(["no", None, "name"]),
    "наше имя\n": pa.array(["x", None, "z"]),
}


def test_read_metadata_every_arrow_type_is_carried_exactly(tmp_path):
    table = pa.table({"url": ["a", None, "c"], "caption": [None, "b", "c"], **EXACT})
    (part,), columns = unify(tmp_path, table)
    read = read_metadata(part, columns)
    assert read.schema.names == table.schema.names
    for name in table.schema.names:
        assert read.schema.field(name).type == table.schema.field(name).type, name
    assert read.drop_columns(["float16", "float32"]) == table.drop_columns(["float16", "float32"])
    for name in ("float16", "float32"):  # nan is not equal to itself
        np.testing.assert_array_equal(read[name].to_numpy(), table[name].to_numpy())


@pytest.mark.parametrize(
    "stored",
    [
        pa.array(["a", None], pa.large_string()),
        pa.array(["a", None], pa.string_view()),
        pa.array(["a", None]).dictionary_encode(),
        pa.array([b"a", None]),
        pa.array([7, None]),
    ],
)
def test_read_metadata_url_of_any_flat_type_is_carried_as_it_is(tmp_path, stored):
    (part,), columns = unify(tmp_path, pa.table({"url": stored, "caption": ["c", "d"]}))
    read = read_metadata(part, columns)
    assert read["url"].type == stored.type
    assert read["url"].to_pylist() == stored.to_pylist()


def test_read_metadata_url_of_nulls_is_text(tmp_path):
    (part,), columns = unify(tmp_path, pa.table({"url": pa.nulls(2), "caption": ["c", "d"]}))
    assert read_metadata(part, columns)["url"].type == pa.string()


def test_read_metadata_any_unicode_and_newlines_survive(tmp_path):
    captions = ["line\nbreak\r\n", "\x00", "🦆 ü \u202e", "", "﷽" * 1000, "\ufeff", '"quoted",']
    table = pa.table({"url": ["same"] * len(captions), "caption": captions})
    (part,), columns = unify(tmp_path, table)
    assert read_metadata(part, columns)["caption"].to_pylist() == captions


def test_unify_columns_columns_that_parts_lack_are_null(tmp_path):
    tables = [
        pa.table({"url": ["a"], "x": pa.array([1], pa.int8())}),
        pa.table({"caption": ["b", "c"], "y": [[1.5], None]}),
        pa.table({"x": pa.array([2], pa.int8()), "url": ["d"]}),
    ]
    parts, columns = unify(tmp_path, *tables)
    assert columns.schema.names == ["url", "caption", "x", "y"]
    assert columns.schema.field("x").type == pa.int8()
    read = pa.concat_tables([read_metadata(part, columns) for part in parts])
    assert read.to_pydict() == {
        "url": ["a", None, None, "d"],
        "caption": [None, "b", "c", None],
        "x": [1, None, None, 2],
        "y": [None, [1.5], None, None],
    }


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (pa.int8(), pa.int32(), pa.int32()),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.null(), pa.date32(), pa.date32()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")),
    ],
)
def test_unify_columns_types_of_two_parts_meet_in_the_wider(tmp_path, first, second, common):
    tables = [pa.table({"url": ["a"], "x": pa.nulls(1, kind)}) for kind in (first, second)]
    for ordered in (tables, tables[::-1]):
        parts, columns = unify(tmp_path, *ordered)
        assert columns.schema.field("x").type == common
        assert {read_metadata(part, columns)["x"].type for part in parts} == {common}


def test_unify_columns_types_of_empty_parts_do_not_count(tmp_path):
    empty = pa.table({"url": pa.nulls(0, pa.float64()), "x": pa.nulls(0, pa.list_(pa.bool_()))})
    listed = pa.table({"caption": pa.nulls(0, pa.list_(pa.string())), "y": pa.nulls(0, pa.int8())})
    filled = pa.table({"url": ["a"], "x": pa.array([7], pa.int16())})
    parts, columns = unify(tmp_path, empty, filled, listed)
    assert columns.schema == pa.schema(
        [
            ("url", pa.string()),
            ("caption", pa.string()),
            ("x", pa.int16()),
            ("y", pa.int8()),
        ]
    )
    read = [read_metadata(part, columns) for part in parts]
    assert [table.num_rows for table in read] == [0, 1, 0]
    assert {table.schema for table in read} == {columns.schema}


def test_unify_columns_url_and_caption_may_have_other_types_in_other_parts(tmp_path):
    tables = [
        pa.table({"url": ["a"], "caption": ["x"]}),
        pa.table({"url": pa.array([None], pa.float64()), "caption": pa.array([b"y"])}),
        pa.table({"url": pa.nulls(1), "caption": pa.array([7])}),
    ]
    parts, columns = unify(tmp_path, *tables)
    read = pa.concat_tables([read_metadata(part, columns) for part in parts])
    assert read.to_pydict() == {"url": ["a", None, None], "caption": ["x", "y", "7"]}


# --- reading --------------------------------------------------------------------------------------


def test_read_metadata_selection_reads_nothing_else(tmp_path, destroy_other_columns):
    (part,), columns = unify(tmp_path, texts("url", "caption", "other"))
    whole = read_metadata(part, columns)
    destroy_other_columns(part.metadata_path, ["url", "other"])
    table = read_metadata(part, columns.select(["other", "url"]))
    assert table.schema.names == ["other", "url"]
    assert table.equals(whole.select(["other", "url"]))
    with pytest.raises(InputError, match="cannot be read"):
        read_metadata(part, columns)


def test_read_metadata_rows_that_changed_since_are_refused(tmp_path):
    (part,), columns = unify(tmp_path, texts("url"))
    pq.write_table(pa.table({"url": ["a", "b", "c"]}), part.metadata_path)
    with pytest.raises(InputError, match=r"metadata_0\.parquet: 3 rows, but it had 2 when the run"):
        read_metadata(part, columns)


def test_read_metadata_file_that_was_damaged_since_is_refused(tmp_path):
    (part,), columns = unify(tmp_path, texts("url"))
    Path(part.metadata_path).write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"metadata_0\.parquet: cannot be read"):
        read_metadata(part, columns)


def test_unify_columns_urls_that_are_bytes_in_some_parts_are_text_if_all_are(tmp_path):
    parts, columns = unify(tmp_path, texts("url"), pa.table({"url": ["ü".encode(), None]}))
    assert read_metadata(parts[1], columns)["url"].to_pylist() == ["ü", None]
    with pytest.raises(
        ColumnError, match=r"_1\.parquet: column 'url' is binary, and string in .*_0\.parquet"
    ):
        unify(tmp_path, texts("url"), pa.table({"url": [b"\xff", None]}))


def test_read_metadata_types_that_changed_since_are_no_reason_to_skip_a_part(tmp_path):
    (part,), columns = unify(tmp_path, pa.table({"url": ["a"], "x": [1]}))
    pq.write_table(pa.table({"url": ["a"], "x": ["text"]}), part.metadata_path)
    with pytest.raises(InputError, match=r"metadata_0\.parquet: column 'x' is string and") as error:
        read_metadata(part, columns)
    assert not isinstance(error.value, UnreadableError)


def test_to_pandas_arrow_types_stay_and_text_is_text():
    table = pa.table({"url": ["a", None], "n": pa.array([1, None], pa.uint8()), "l": [[1], None]})
    frame = to_pandas(table)
    assert frame.dtypes["url"] == STRING
    assert frame.dtypes["n"].pyarrow_dtype == pa.uint8()
    assert frame.dtypes["l"].pyarrow_dtype == pa.list_(pa.int64())
    assert pa.Table.from_pandas(frame, preserve_index=False).to_pydict() == table.to_pydict()
