"""Footers: what Arrow's types leave out, and what is said of files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.data.metadata import unify_columns
from dask_dedup.data.metadata_check import special_of
from dask_dedup.data.metadata_footer import read_footer
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.errors import ColumnError, InputError


def duck(path: Path, columns: str) -> str:
    duckdb = pytest.importorskip("duckdb")
    duckdb.sql(f"copy (select 'u' as url, 'c' as caption, {columns}) to '{path}' (format parquet)")
    return str(path)


def part_of(path: str) -> Part:
    return Part(0, 0, path, EmbeddingFile("none.npy", 1, 3, "<f4", False, 128))


def test_read_footer_equal_schemas_are_one_object(tmp_path):
    for i in range(2):
        table = pa.table({"a": [i], "b": ["x"]}).replace_schema_metadata({"pandas": f"{i}"})
        pq.write_table(table, tmp_path / f"{i}.parquet")
    schemas = [read_footer(str(tmp_path / f"{i}.parquet"))[1] for i in range(2)]
    assert schemas[0] is schemas[1]
    assert schemas[0].metadata is None


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ("interval 3 month as x", "INTERVAL"),
        ("[interval 3 month] as x", "INTERVAL"),
        ("'10:00:00+02'::TIMETZ as x", "TIME with a time zone"),
        ("{'a': 1, 'b': [1]}::VARIANT as x", "VARIANT"),
    ],
)
def test_types_that_arrow_does_not_write_again_are_refused_by_name(tmp_path, columns, what):
    part = part_of(duck(tmp_path / "metadata_0.parquet", f"7 as before, {columns}, 'b' as behind"))
    rows, schema = read_footer(part.metadata_path)
    assert rows == 1
    assert {name: set(special_of(schema.field(name)).values()) for name in schema.names} == {
        **{name: set() for name in ("url", "caption", "before", "behind")},
        "x": {what},
    }
    with pytest.raises(
        ColumnError,
        match=rf"metadata_0\.parquet: column 'x' is {what}, which Arrow reads as .*"
        r"--drop-columns x goes on without it",
    ):
        unify_columns([part], [schema])
    assert unify_columns([part], [schema], dropped=["x"]).schema.names == [
        *("url", "caption", "before", "behind")
    ]


def test_times_of_a_day_without_a_zone_are_taken(tmp_path):
    part = part_of(duck(tmp_path / "metadata_0.parquet", "'10:00:00'::TIME as x"))
    schema = read_footer(part.metadata_path)[1]
    assert unify_columns([part], [schema]).schema.field("x").type == pa.time64("us")


def test_times_of_a_day_by_arrow_are_taken_whatever_their_flag(tmp_path):
    path = str(tmp_path / "metadata_0.parquet")
    table = pa.table({"url": ["u"], "caption": ["c"], "x": pa.array([1], pa.time64("us"))})
    pq.write_table(table, path, write_time_adjusted_to_utc=True)
    schema = read_footer(path)[1]
    assert unify_columns([part_of(path)], [schema]).schema.field("x").type == pa.time64("us")


def test_read_footer_a_type_that_pyarrow_does_not_know_is_no_damage(tmp_path):
    polars = pytest.importorskip("polars")
    path = str(tmp_path / "metadata_0.parquet")
    polars.DataFrame({"a": [2**100]}, schema={"a": polars.Int128}).write_parquet(path)
    with pytest.raises(
        ColumnError, match=r"has a column that pyarrow .* cannot read \(Int"
    ) as error:
        read_footer(path)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_read_footer_of_no_parquet_file_says_damaged(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(
        InputError, match=r"a\.parquet: expected a parquet file.*damaged or"
    ) as error:
        read_footer(str(tmp_path / "a.parquet"))
    assert not isinstance(error.value, ColumnError)
