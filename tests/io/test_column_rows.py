"""Embeddings in a list column: types, row groups, null and odd rows, whole runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup import Settings, read_dataset, run
from dask_dedup.errors import InputError
from dask_dedup.io import column_rows
from dask_dedup.io.parts import gather_rows, read_rows

ROWS, DIM = 1009, 7


def column_of(rows: np.ndarray, kind: str) -> pa.Array:
    flat = pa.array(rows.ravel())
    offsets = np.arange(0, rows.size + 1, rows.shape[1])
    if kind == "list":
        return pa.ListArray.from_arrays(offsets.astype(np.int32), flat)
    if kind == "large_list":
        return pa.LargeListArray.from_arrays(offsets, flat)
    if kind == "fixed_size_list":
        return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    return pa.FixedShapeTensorArray.from_numpy_ndarray(rows)


def write_column(path, rows, kind="list", group=77, **columns) -> None:
    table = pa.table({"url": [str(i) for i in range(len(rows))], "emb": column_of(rows, kind)})
    for name, values in columns.items():
        table = table.append_column(name, [values])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(ROWS, DIM)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed_size_list", "tensor"])
def test_every_list_type_is_read_as_it_was_written(tmp_path, rows, kind, dtype, monkeypatch):
    monkeypatch.setattr(column_rows, "_CHUNK_BYTES", 8 * DIM * 31)  # chunks and row groups differ
    rows = rows.astype(dtype)
    write_column(tmp_path / "a.parquet", rows, kind)
    data = read_dataset(tmp_path, embedding_column="emb")
    file = data.parts[0].embeddings
    assert (file.rows, file.dim, file.dtype) == (ROWS, DIM, rows.dtype.str)
    assert "emb" not in data.columns.schema.names
    blocks = [read_rows(file, start, min(start + 130, ROWS)) for start in range(0, ROWS, 130)]
    np.testing.assert_array_equal(np.concatenate(blocks), rows)
    positions = np.sort(np.random.default_rng(4).choice(ROWS, 60))  # some of them twice
    np.testing.assert_array_equal(gather_rows(file, positions), rows[positions])
    np.testing.assert_array_equal(gather_rows(file, positions[:0]), rows[:0])
    assert data.embeddings.compute().dtype == rows.dtype


def test_rows_in_any_order_of_calls_are_the_same(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(column_rows, "_CHUNK_BYTES", 8 * DIM * 10)
    write_column(tmp_path / "a.parquet", rows)
    file = read_dataset(tmp_path, embedding_column="emb").parts[0].embeddings
    for start in np.random.default_rng(5).permutation(ROWS - 40)[:60].tolist():
        np.testing.assert_array_equal(read_rows(file, start, start + 40), rows[start : start + 40])


def test_a_file_that_is_written_anew_is_read_anew(tmp_path, rows):
    path = tmp_path / "a.parquet"
    write_column(path, rows)
    file = read_dataset(tmp_path, embedding_column="emb").parts[0].embeddings
    read_rows(file, 0, 5)
    write_column(path, rows[::-1].copy(), group=100)
    np.testing.assert_array_equal(read_rows(file, 5, 9), rows[::-1][5:9])
    write_column(path, rows[:50])
    with pytest.raises(InputError, match=r"a\.parquet: 50 rows, but it had 1009 when the run"):
        read_rows(file, 0, 5)


@pytest.mark.parametrize("size", [-1, 2])
def test_null_and_odd_rows_are_nan(tmp_path, size):
    values = [None, [1.0, 2.0], [4.0, None], [5.0, 6.0]]
    values += [] if size == 2 else [[1.0, 2.0, 3.0], []]
    table = pa.table({"emb": pa.array(values, pa.list_(pa.float32(), size))})
    pq.write_table(table, tmp_path / "a.parquet")
    file = read_dataset(tmp_path, embedding_column="emb").parts[0].embeddings
    nan = np.nan
    wanted = np.array([[nan, nan], [1, 2], [4, nan], [5, 6], [nan, nan], [nan, nan]], "f4")
    np.testing.assert_array_equal(read_rows(file, 0, file.rows), wanted[: file.rows])


def test_part_of_which_no_row_tells_the_dimension_has_that_of_the_others(tmp_path, rows):
    write_column(tmp_path / "a.parquet", rows[:0])
    write_column(tmp_path / "b.parquet", rows)
    nulls = pa.table({"url": ["x"], "emb": pa.array([None], pa.list_(pa.float32()))})
    pq.write_table(nulls, tmp_path / "c.parquet")
    data = read_dataset(tmp_path, embedding_column="emb")
    assert [part.embeddings.dim for part in data.parts] == [DIM] * 3
    assert np.isnan(read_rows(data.parts[2].embeddings, 0, 1)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"url": ["x"]}, r"a\.parquet: expected one column 'emb' \(embedding_column\); the column"),
        ({"emb": [1.0]}, r"'emb' \(embedding_column\) is expected to hold lists .*, got double"),
        ({"emb": [[1, 2]]}, r"expected to hold lists of float16, .*, got list<element: int64>"),
        ({"emb": ["text"]}, r"expected to hold lists .*, got (large_)?string"),
    ],
)
def test_column_that_cannot_be_embeddings_is_refused(tmp_path, content, message):
    pq.write_table(pa.table(content), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path, embedding_column="emb")


def test_parts_of_two_dimensions_are_refused(tmp_path, rows):
    write_column(tmp_path / "a.parquet", rows)
    write_column(tmp_path / "b.parquet", rows[:, :5].copy())
    with pytest.raises(InputError, match=r"b\.parquet: embeddings have dimension 5, but .* has 7"):
        read_dataset(tmp_path, embedding_column="emb")


def test_column_beside_embedding_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"embedding_column: .* no place beside it"):
        read_dataset(tmp_path, embedding_column="emb", image_embeddings="*.npy")


def test_run_over_a_column_finds_what_a_run_over_files_finds(tmp_path, write_dataset):
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(600, 16)).astype(np.float32)
    rows[300:400] = rows[:100] + 0.02 * rng.normal(size=(100, 16)).astype(np.float32)
    rows[7], rows[11] = 0, np.nan
    cuts = [rows[:250], rows[250:]]
    frames = [
        pd.DataFrame({"url": [f"http://x/{i}-{j}" for j in range(len(cut))]}).assign(caption="c")
        for i, cut in enumerate(cuts)
    ]
    files = write_dataset(tmp_path / "files", cuts, frames)
    for i, (cut, frame) in enumerate(zip(cuts, frames, strict=True)):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        table = table.append_column("emb", [column_of(cut, "list")])
        (tmp_path / "column" / "metadata").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / "column" / "metadata" / f"{i}.parquet", row_group_size=70)
    settings = {"audit": {"queries": 50}}
    run(files, tmp_path / "a", Settings.model_validate(settings))
    settings["read"] = {"embedding_column": "emb"}
    run(tmp_path / "column", tmp_path / "b", Settings.model_validate(settings))
    for name in ("clusters", "forest", "invalid"):
        one, other = (pd.read_parquet(tmp_path / out / name) for out in "ab")
        pd.testing.assert_frame_equal(one, other)
    clusters = pd.read_parquet(tmp_path / "b" / "clusters")
    assert len(clusters) == 600
    assert (clusters["cluster_size"] == 2).sum() > 150
    assert not clusters["is_valid"][[7, 11]].any()
