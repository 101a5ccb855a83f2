"""Exports as tables: read by polars, DuckDB and others; notes and types of the columns."""

import json
from functools import partial

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_dedup
from dask_dedup import export
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


@pytest.mark.parametrize("format", ["parquet", "csv", "img2dataset"])
def test_export_of_tables_is_read_by_others(
    tmp_path, small_run, small_clusters, format, plain, counts_of
):
    summary = export(small_run, tmp_path / "to", format=format)
    kept = small_clusters[small_clusters["is_kept"]]
    if format == "img2dataset":
        assert summary["without_url"] == kept["url"].isna().sum()
        kept = kept[kept["url"].notna()]
    ending = "csv" if format == "csv" else "parquet"
    pattern = str(tmp_path / "to" / format / f"*.{ending}")
    read = {"parquet": pl.read_parquet, "csv": pl.read_csv}[ending]
    for frame in (
        duckdb.sql(f"from '{pattern}' order by row_id").df(),
        pd.DataFrame(read(pattern).sort("row_id").to_dict()),
    ):
        assert frame["row_id"].tolist() == kept["row_id"].tolist()
        assert frame["caption"].tolist() == kept["caption"].tolist()
        assert plain(frame["url"]) == plain(kept["url"])
        counts = counts_of(small_clusters)[kept["row_id"]]
        assert frame["duplicate_count"].tolist() == counts.tolist()
    if format == "csv":
        expected = [None if v is None else str(v.tolist()) for v in kept["tags"]]
        assert plain(frame["tags"]) == expected
    assert ("tags" in frame) == (format != "img2dataset")


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_export_is_read_by_datasets(tmp_path, small_run, small_clusters, kind):
    datasets = pytest.importorskip("datasets")
    export(small_run, tmp_path / "to", format=kind)
    files = str(tmp_path / "to" / kind / f"*.{kind}")
    found = datasets.load_dataset(
        kind, data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    kept = small_clusters[small_clusters["is_kept"]]
    assert found["row_id"][:] == kept["row_id"].tolist()
    assert found["caption"][:] == kept["caption"].tolist()


def test_export_to_csv_of_text_that_is_no_utf8_escapes_it(tmp_path, bytes_run):
    export(bytes_run[1], tmp_path / "to", format="csv")
    (path,) = (tmp_path / "to" / "csv").iterdir()
    found = pd.read_csv(path)
    expected = [url.decode("utf8", "backslashreplace") for url in bytes_run[2][:40]]
    assert found["url"].tolist() == expected
    assert found["tags"].map(json.loads).tolist() == [[one] for one in expected]


def test_export_keeps_the_notes_and_types_of_the_columns(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.eye(6, dtype="f4")] * 2)
    for i in range(2):
        schema = pa.schema(
            [
                pa.field("URL", pa.string(), metadata={"is": "an address"}),
                pa.field("row_id", pa.uint8()),
                pa.field("when", pa.timestamp("ns", "Asia/Tokyo")),
                pa.field("box", pa.list_(pa.float32(), 2)),
                pa.field("cut.off", pa.decimal128(7, 2)),
            ],
            {"mine": f"part {i}"},
        )
        columns = [["u"] * 6, range(6), [1] * 6, [[0.5, 1]] * 6, [None] * 6]
        table = pa.table(
            [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema
        )
        pq.write_table(table, data / "metadata" / f"metadata_{i}.parquet")
    run_here(data, tmp_path / "out", audit_queries=0)
    export(tmp_path / "out", tmp_path / "to")
    for i in range(2):
        found = pq.read_schema(tmp_path / "to" / "metadata" / f"metadata_{i}.parquet")
        before = pq.read_schema(data / "metadata" / f"metadata_{i}.parquet")
        assert found.metadata == before.metadata
        assert found.names == [
            "row_id", "cluster_id", "duplicate_count", "URL", "source_row_id", "when", "box",
            "cut.off",
        ]  # fmt: skip
        for name in before.names:
            own = found.field("source_row_id" if name == "row_id" else name)
            assert own.type == before.field(name).type
            assert own.metadata == before.field(name).metadata
    export(tmp_path / "out", tmp_path / "csv", format="csv", columns=["cut.off", "box"])
    (path,) = (tmp_path / "csv" / "csv").iterdir()
    assert path.read_text().splitlines()[1] == '0,0,2,,"[0.5, 1.0]"'
