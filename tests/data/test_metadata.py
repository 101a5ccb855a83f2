"""Metadata columns: found, unified between parts, read as they are."""

from __future__ import annotations

import datetime
import decimal
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.data.metadata import MetadataColumns, read_metadata, to_pandas, unify_columns
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.errors import ColumnError, InputError, UnreadableError
from dask_dedup.schema import CLUSTERS, RESERVED_COLUMNS, STRING


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


# --- which columns --------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["url", "URL"])
@pytest.mark.parametrize("caption", ["caption", "TEXT"])
def test_unify_columns_usual_names_are_found(tmp_path, caplog, url, caption):
    (part,), columns = unify(tmp_path, texts(caption, "other", url))
    assert columns.schema.names == ["url", "caption", "other"]
    assert columns.sources == ((url,), (caption,), ("other",))
    table = read_metadata(part, columns)
    assert table["url"].to_pylist() == [f"{url} 0", None]
    assert table["caption"].to_pylist() == [f"{caption} 0", None]
    assert not caplog.records


def test_unify_columns_other_names_are_taken_by_setting(tmp_path):
    (part,), columns = unify(
        tmp_path, texts("link", "alt", "url", "TEXT"), url="link", caption="alt"
    )
    assert columns.schema.names == ["url", "caption", "source_url", "TEXT"]
    assert read_metadata(part, columns)["url"].to_pylist() == ["link 0", None]
    assert read_metadata(part, columns)["source_url"].to_pylist() == ["url 0", None]


@pytest.mark.parametrize("setting", ["url", "caption"])
def test_unify_columns_named_column_that_is_nowhere_is_refused(tmp_path, setting):
    with pytest.raises(
        InputError,
        match=rf"metadata_0\.parquet: no column 'lnk' \({setting}_column\); the columns are l",
    ):
        unify(tmp_path, texts("link", "a"), **{setting: "lnk"})


def test_unify_columns_missing_url_and_caption_are_logged_once_and_null(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        (first, _), columns = unify(tmp_path, texts("a"), texts("a"))
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "no column url or URL",
        "no column caption or TEXT",
    ]
    table = read_metadata(first, columns)
    assert table.schema.names == ["url", "caption", "a"]
    assert table["url"].to_pylist() == table["caption"].to_pylist() == [None, None]
    assert table["url"].type == table["caption"].type == pa.string()


def test_unify_columns_colliding_names_get_the_prefix(tmp_path):
    names = sorted({*CLUSTERS.columns, "invalid_reason"} - {"url", "caption"})
    (part,), columns = unify(tmp_path, texts("url", "caption", *names))
    assert columns.schema.names == ["url", "caption", *(f"source_{name}" for name in names)]
    assert not RESERVED_COLUMNS & set(columns.schema.names[2:])
    table = read_metadata(part, columns)
    for name in names:
        assert table[f"source_{name}"].to_pylist() == [f"{name} 0", None]


def test_unify_columns_prefixed_name_that_exists_gets_another_prefix(tmp_path):
    (part,), columns = unify(tmp_path, texts("url", "caption", "row_id", "source_row_id"))
    assert columns.schema.names[2:] == ["source_source_row_id", "source_row_id"]
    table = read_metadata(part, columns)
    assert table["source_source_row_id"].to_pylist()[0] == "row_id 0"
    assert table["source_row_id"].to_pylist()[0] == "source_row_id 0"


def test_unify_columns_name_twice_in_one_file_is_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["url", "x", "x"])
    with pytest.raises(InputError, match=r"metadata_1\.parquet: column 'x' stands there more than"):
        unify(tmp_path, texts("url", "x"), twice)


@pytest.mark.parametrize("name", ["url", "caption"])
def test_unify_columns_lists_that_are_named_as_text_are_refused_at_once(tmp_path, name):
    with pytest.raises(
        InputError,
        match=rf"metadata_0\.parquet: column 'both' is expected to be text, got list<.*> "
        rf"\({name}_column names another",
    ):
        unify(tmp_path, pa.table({"both": [["a", "b"]]}), **{name: "both"})


@pytest.mark.parametrize(
    ("name", "ours"), [("caption", "caption"), ("TEXT", "caption"), ("url", "url")]
)
def test_unify_columns_lists_that_nobody_named_are_carried_with_one_warning(
    tmp_path, caplog, name, ours
):
    lists = [["a", "b"], None, []]
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        (part,), columns = unify(
            tmp_path, pa.table({("TEXT" if name == "url" else "url"): ["u"] * 3, name: lists})
        )
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert f"{name!r} holds list<" in said[0]
    assert read_metadata(part, columns)[ours].to_pylist() == lists


def test_unify_columns_spellings_of_other_parts_are_one_column(tmp_path, caplog):
    tables = [texts("url", "caption"), texts("URL", "TEXT"), texts("TEXT", "url")]
    parts, columns = unify(tmp_path, *tables)
    assert columns.schema.names == ["url", "caption"]
    read = [read_metadata(part, columns) for part in parts]
    assert [table["url"].to_pylist()[0] for table in read] == ["url 0", "URL 0", "url 0"]
    assert [table["caption"].to_pylist()[0] for table in read] == ["caption 0", "TEXT 0", "TEXT 0"]
    assert not caplog.records


def test_unify_columns_both_spellings_in_one_part_are_two_columns(tmp_path, caplog):
    tables = [texts("url", "URL", "caption"), texts("URL", "caption")]
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        parts, columns = unify(tmp_path, *tables)
    assert columns.schema.names == ["url", "caption", "URL"]
    read = pa.concat_tables([read_metadata(part, columns) for part in parts])
    assert read["url"].to_pylist() == ["url 0", None, None, None]
    assert read["URL"].to_pylist() == ["URL 0", None, "URL 0", None]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "'url' and 'URL'" in said
    assert "metadata_1.parquet has no 'url'" in said


def test_unify_columns_other_spellings_of_other_columns_get_one_warning(tmp_path, caplog):
    tables = [texts("url", "caption", "width", "A", "a"), texts("url", "caption", "WIDTH")]
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        parts, columns = unify(tmp_path, *tables)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "'width' and 'WIDTH': spelled differently" in said
    read = pa.concat_tables([read_metadata(part, columns) for part in parts])
    assert read["width"].to_pylist() == ["width 0", None, None, None]
    assert read["WIDTH"].to_pylist() == [None, None, "WIDTH 0", None]


# --- a choice of columns --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "dropped", "names"),
    [
        (["b"], None, ["url", "caption", "b"]),
        ([], None, ["url", "caption"]),
        (["url", "c"], None, ["url", "caption", "c"]),
        (None, ["a", "c"], ["url", "caption", "b"]),
        (["a", "b"], ["b"], ["url", "caption", "a"]),
    ],
)
def test_unify_columns_chosen_columns_are_carried(tmp_path, only, dropped, names):
    table = texts("a", "url", "b", "caption", "c")
    part = part_of(tmp_path, table)
    columns = unify_columns([part], [table.schema], only=only, dropped=dropped)
    assert read_metadata(part, columns).schema.names == names


def test_unify_columns_a_dropped_caption_is_null(tmp_path, caplog):
    table = texts("url", "caption")
    part = part_of(tmp_path, table)
    columns = unify_columns([part], [table.schema], dropped=["caption"])
    assert read_metadata(part, columns).to_pydict() == {
        "url": ["url 0", None],
        "caption": [None, None],
    }
    assert not caplog.records


@pytest.mark.parametrize(("setting", "key"), [("columns", "only"), ("drop_columns", "dropped")])
def test_unify_columns_a_chosen_column_that_is_nowhere_is_refused(tmp_path, setting, key):
    table = texts("url", "a")
    with pytest.raises(InputError, match=rf"no column 'b' \({setting}\); the columns are url, a\."):
        unify_columns([part_of(tmp_path, table)], [table.schema], **{key: ["a", "b"]})


def test_unify_columns_dropped_columns_cannot_veto(tmp_path):
    tables = [pa.table({"url": ["a"], "x": x}) for x in ([1], ["text"])]
    parts = [part_of(tmp_path, table, i) for i, table in enumerate(tables)]
    schemas = [table.schema for table in tables]
    with pytest.raises(
        ColumnError,
        match=r"_1\.parquet: column 'x' is string, and int64 in .*_0\.parquet: .*-columns x g",
    ):
        unify_columns(parts, schemas)
    assert unify_columns(parts, schemas, dropped=["x"]).schema.names == ["url", "caption"]


# --- which types ----------------------------------------------------------------------------------

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
