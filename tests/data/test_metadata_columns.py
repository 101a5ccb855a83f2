"""Which metadata columns a data set has: usual names, names given, choices."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.data.metadata import MetadataColumns, read_metadata, unify_columns
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.errors import ColumnError, InputError
from dask_dedup.schema import CLUSTERS, RESERVED_COLUMNS


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
