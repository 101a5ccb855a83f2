"""Notes of footers and fields: they are carried where they stay true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.data.metadata import read_metadata, unify_columns
from dask_dedup.data.metadata_footer import read_footer
from dask_dedup.data.metadata_notes import file_notes
from dask_dedup.data.part_rows import PartRows
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.results.clusters import write_clusters
from dask_dedup.schema import LABELS


def parts_of(folder: Path, *tables: pa.Table) -> tuple[list[Part], list[pa.Schema]]:
    parts, schemas, start = [], [], 0
    for i, table in enumerate(tables):
        path = str(folder / f"metadata_{i}.parquet")
        pq.write_table(table, path)
        np.save(folder / f"{i}.npy", np.eye(table.num_rows, 5, dtype=np.float32))
        offset = 128
        file = EmbeddingFile(str(folder / f"{i}.npy"), table.num_rows, 5, "<f4", False, offset)
        parts.append(Part(i, start, path, file))
        schemas.append(read_footer(path)[1])
        start += table.num_rows
    return parts, schemas


def clusters_of(folder: Path, *tables: pa.Table, **choice: Any) -> list[Path]:
    """Write OUT/clusters of parts in which every row is alone."""
    parts, schemas = parts_of(folder, *tables)
    columns = unify_columns(parts, schemas, **choice)
    (folder / "clusters").mkdir()
    paths = []
    for part in parts:
        paths.append(folder / "clusters" / f"part-{part.index:05d}.parquet")
        write_clusters(
            part, columns, LABELS, np.empty(0, np.int64), PartRows(parts), paths[-1], 0.9
        )
    return paths


def frame(first: int, rows: int, **columns: Any) -> pd.DataFrame:
    ids = [f"{i}" for i in range(first, first + rows)]
    return pd.DataFrame({"url": ids, "caption": ids, **columns})


def test_notes_of_fields_come_back_in_each_part(tmp_path):
    tables = []
    for i in range(2):
        table = pa.Table.from_pandas(frame(3 * i, 3), preserve_index=False)
        geo = pa.field("geo", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
        own = pa.field("n", pa.int8(), metadata={"unit": "mm" if i else "cm", "id": "7"})
        table = table.append_column(geo, pa.array([b"x"] * 3))
        tables.append(table.append_column(own, pa.array([1] * 3, pa.int8())))
    tables.append(tables[0].drop_columns(["geo", "n"]))
    paths = clusters_of(tmp_path, *tables)
    for path, table in zip(paths[:2], tables, strict=False):
        schema = pq.read_schema(path)
        assert schema.field("geo").metadata == {b"ARROW:extension:name": b"geoarrow.wkb"}
        assert schema.field("n").metadata == table.schema.field("n").metadata
    assert pq.read_schema(paths[2]).field("geo").metadata == {
        b"ARROW:extension:name": b"geoarrow.wkb"
    }


def test_extension_types_are_the_same_whether_or_not_this_process_knows_them(tmp_path):
    period = pd.period_range("2020-01", periods=3, freq="M")
    span = pd.arrays.IntervalArray.from_breaks(range(4))
    table = pa.Table.from_pandas(frame(0, 3, month=period, span=span))
    (path,) = clusters_of(tmp_path, table)  # pandas has registered both here
    read = pd.read_parquet(path)
    assert read["month"].dtype == "period[M]"
    assert read["month"].tolist() == period.tolist()
    assert read["span"].tolist() == list(span)
    notes = pq.read_schema(path).field("month")
    assert getattr(notes.type, "extension_name", "") == "pandas.period"


@pytest.mark.parametrize("ordered", [False, True])
def test_categories_come_back_with_their_order_and_those_without_rows(tmp_path, ordered):
    frames = [
        frame(0, 3, size=pd.Categorical(list(own), list("zyx"), ordered=ordered))
        for own in ("zyy", "xxz")
    ]
    paths = clusters_of(tmp_path, *map(pa.Table.from_pandas, frames))
    for path, source in zip(paths, frames, strict=True):
        pd.testing.assert_series_equal(pd.read_parquet(path)["size"], source["size"])
    whole = pd.read_parquet(tmp_path / "clusters")
    pd.testing.assert_series_equal(
        whole["size"].reset_index(drop=True), pd.concat(frames)["size"].reset_index(drop=True)
    )


INDEXES = {
    "named": lambda a, b: pd.Index([f"k{i}" for i in range(a, b)], name="key"),
    "without a name": lambda a, b: pd.Index([f"k{i}" for i in range(a, b)]),
    "two levels": lambda a, b: pd.MultiIndex.from_tuples(
        [(f"k{i}", i) for i in range(a, b)], names=["key", None]
    ),
    "times": lambda a, b: pd.DatetimeIndex(np.arange(a, b).astype("M8[D]"), name="day"),
    "a range of its own": lambda a, b: pd.RangeIndex(1000 + a, 1000 + b, name="n"),
    "a range": lambda a, b: pd.RangeIndex(b - a),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_an_index_of_pandas_is_restored(tmp_path, index):
    frames = [frame(0, 3), frame(3, 4)]
    frames[0].index, frames[1].index = index(0, 3), index(3, 7)
    paths = clusters_of(tmp_path, *map(pa.Table.from_pandas, frames))
    sources = [pd.read_parquet(tmp_path / f"metadata_{i}.parquet") for i in range(2)]
    for path, source in zip(paths, sources, strict=True):
        read = pd.read_parquet(path)
        pd.testing.assert_frame_equal(read[["url", "caption"]], source)
        assert list(read.columns[:2]) == ["row_id", "cluster_id"]
    whole = pd.read_parquet(tmp_path / "clusters")
    assert whole["row_id"].tolist() == list(range(7))
    if not isinstance(frames[0].index, pd.RangeIndex):
        pd.testing.assert_frame_equal(whole[["url", "caption"]], pd.concat(sources))


def test_pandas_types_come_back_where_the_type_is_the_same(tmp_path):
    one = frame(0, 3, a=pd.array([1, None, 3], "Int64"), b=[1, 2, 3], row_id=list("abc"))
    two = frame(3, 2, a=pd.array([1, None], "Int64"), b=[0.5, np.nan])
    paths = clusters_of(tmp_path, *map(pa.Table.from_pandas, (one, two)))
    read = pd.read_parquet(paths[0])
    pd.testing.assert_series_equal(read["a"], one["a"])
    assert read["b"].tolist() == [1.0, 2.0, 3.0]
    assert read["b"].dtype == float
    assert read["source_row_id"].tolist() == list("abc")
    assert read["row_id"].tolist() == [0, 1, 2]


def test_pandas_columns_that_are_numbers_or_levels_are_no_hindrance(tmp_path):
    table = pa.Table.from_pandas(pd.DataFrame({0: [7, 8], 1: ["x", "y"]}))
    (path,) = clusters_of(tmp_path, table)
    read = pd.read_parquet(path)
    assert read["0"].tolist() == [7, 8]
    assert read["row_id"].tolist() == [0, 1]


def test_features_of_hugging_face_come_along_under_our_names(tmp_path):
    features = {
        "URL": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
        "gone": {"_type": "Image"},
    }
    table = pa.table({"URL": ["a"], "TEXT": ["b"], "label": [1], "gone": [b"x"]})
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features, "version": 1}}), "mine": "kept"}
    )
    (path,) = clusters_of(tmp_path, table, dropped=["gone"])
    notes = pq.read_schema(path).metadata
    assert notes[b"mine"] == b"kept"
    assert json.loads(notes[b"huggingface"]) == {
        "info": {
            "features": {"url": features["URL"], "label": features["label"]},
            "version": 1,
        }
    }


def test_notes_that_would_hide_our_columns_are_left_out_with_a_warning(tmp_path, caplog):
    spark = "org.apache.spark.sql.parquet.row.metadata"
    table = pa.table({"url": ["a"], "caption": ["b"]})
    table = table.replace_schema_metadata({spark: "{}", "org.apache.spark.version": "3.5"})
    (path,) = clusters_of(tmp_path, table)
    assert pq.read_schema(path).metadata == {b"org.apache.spark.version": b"3.5"}
    (said,) = [record.getMessage() for record in caplog.records]
    assert spark in said


def test_file_notes_geoparquet_follows_its_columns():
    geo = {"version": "1.1.0", "primary_column": "g", "columns": {"g": {"encoding": "WKB"}, "h": 1}}
    notes = {b"geo": json.dumps(geo).encode()}
    kept = json.loads(file_notes(notes, {"g": "source_g"}, set())[b"geo"])
    assert kept["primary_column"] == "source_g"
    assert kept["columns"] == {"source_g": {"encoding": "WKB"}}
    assert file_notes(notes, {"h": "h"}, set()) == {}


@pytest.mark.parametrize("value", [b"{", b"[]", b"7", b"{}", b"\xff"])
def test_file_notes_nobody_can_read_are_left_out(value):
    for key in (b"pandas", b"geo"):
        assert file_notes({key: value, b"other": value}, {}, set()) == {b"other": value}


def test_read_metadata_a_part_that_is_quarantined_is_null_with_the_others_types(tmp_path):
    table = pa.table({"url": ["a"], "caption": ["b"], "x": pa.array([1], pa.int8())})
    parts, schemas = parts_of(tmp_path, table, table)
    from dataclasses import replace

    columns = unify_columns(parts, schemas)
    read = read_metadata(replace(parts[1], metadata_problem="damaged"), columns)
    assert read.to_pydict() == {"url": [None], "caption": [None], "x": [None]}
    assert read.schema.field("x").type == pa.int8()


def test_clusters_read_by_others_are_equal_to_the_source(tmp_path):
    """DuckDB and polars beside pyarrow: each reads our file as it reads the source."""
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    columns = {
        "i": pa.array([1, None, 2**63 - 1]),
        "u": pa.array([1, None, 2**64 - 1], pa.uint64()),
        "f": pa.array([0.1, None, -0.0]),
        "s": pa.array(["a", None, "ü"]),
        "b": pa.array([b"\xff", None, b""]),
        "d": pa.array([1, None, 2], pa.date32()),
        "t": pa.array([1, None, 2], pa.timestamp("us", "UTC")),
        "c": pa.array(["x", None, "y"]).dictionary_encode(),
        "l": pa.array([[1, None], None, []]),
        "st": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
        "v": pa.array(["a", None, "b" * 20], pa.string_view()),
        "id": pa.array([b"a" * 16, None, b"b" * 16], pa.uuid()),
        "j": pa.array(["{}", None, "1"], pa.json_()),
    }
    table = pa.table({"url": ["a", "b", "c"], "caption": ["x", None, "z"], **columns})
    (path,) = clusters_of(tmp_path, table)
    source = tmp_path / "metadata_0.parquet"
    names = list(table.column_names)
    read = {
        "pyarrow": lambda p: pq.read_table(p).select(names).to_pylist(),
        "duckdb": lambda p: duckdb.sql(f"select {', '.join(names)} from '{p}'").fetchall(),
        "duckdb's types": lambda p: duckdb.sql(f"select {', '.join(names)} from '{p}'").types,
        "polars": lambda p: polars.read_parquet(p).select(names).rows(),
        "polars' types": lambda p: polars.read_parquet(p).select(names).schema,
    }
    for who, reader in read.items():
        assert reader(path) == reader(source), who
