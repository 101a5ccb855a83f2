"""Embeddings in a list column: types, row groups, null and odd rows, whole runs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_dedup
from dask_dedup import Settings, read_dataset
from dask_dedup.data.column_rows import (
    _count_lengths,
    read_column_header,
    settle_dimension,
    take_column_rows,
)
from dask_dedup.data.parts import gather_rows, read_rows
from dask_dedup.errors import InputError
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

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
def test_every_list_type_is_read_as_it_was_written(tmp_path, rows, kind, dtype):
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
    in_chunks = take_column_rows(file, positions, 8 * DIM * 31)  # chunks and row groups differ
    np.testing.assert_array_equal(in_chunks, rows[positions])
    np.testing.assert_array_equal(gather_rows(file, positions[:0]), rows[:0])
    assert data.embeddings.compute().dtype == rows.dtype


def test_rows_in_any_order_of_calls_are_the_same(tmp_path, rows):
    write_column(tmp_path / "a.parquet", rows)
    file = read_dataset(tmp_path, embedding_column="emb").parts[0].embeddings
    for start in np.random.default_rng(5).permutation(ROWS - 40)[:60].tolist():
        some = np.arange(start, start + 40)
        np.testing.assert_array_equal(take_column_rows(file, some, 8 * DIM * 10), rows[some])


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


def test_part_of_which_no_row_has_a_dimension_has_that_of_the_others(tmp_path, rows):
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
        ({"emb": [[True]]}, r"expected to hold lists of float16, .*, got list<element: bool>"),
        ({"emb": [{"a": 1.0}]}, r"expected to hold lists of .*, got struct<a: double>"),
        ({"emb": [{"a": [1.0], "b": [2]}]}, r"expected to hold lists of .*, got struct<a: list<"),
        ({"emb": [[[1.0], [2.0]]]}, r"a\.parquet: column 'emb' .* holds several lists in most row"),
        ({"emb": ["text"]}, r"expected to hold lists .*, got (large_)?string"),
    ],
)
def test_column_that_cannot_be_embeddings_is_refused(tmp_path, content, message):
    pq.write_table(pa.table(content), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path, embedding_column="emb")


def write_lists(path, values, value_type=None, group=None):
    value_type = value_type or pa.list_(pa.float32())
    table = pa.table({"url": ["x"] * len(values), "emb": pa.array(values, value_type)})
    pq.write_table(table, path, row_group_size=group or len(values))


def all_rows(data) -> np.ndarray:
    return np.concatenate([read_rows(part.embeddings, 0, part.rows) for part in data.parts])


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_dimension_is_that_of_most_rows_of_all_parts(tmp_path, rows, order, caplog):
    write_column(tmp_path / f"{order[0]}.parquet", rows)
    kinds = {"b": "fixed_size_list"}  # whose type has it, if alone
    write_column(tmp_path / f"{order[1]}.parquet", rows[:600, :5].copy(), kinds.get(order[1]))
    data = read_dataset(tmp_path, embedding_column="emb")
    assert data.dim == DIM
    usable = ~np.isnan(all_rows(data)).any(axis=1)
    assert usable.sum() == ROWS
    wanted = [True] * ROWS + [False] * 600
    assert usable.tolist() == (wanted if order == "ab" else wanted[::-1])
    assert "dimension 7, as most rows have; 600 rows of other lengths (5) count as" in caplog.text


@pytest.mark.parametrize("group", [None, 100])
@pytest.mark.parametrize("front", [[1.0], [0.0] * 900, None, []])
def test_placeholders_in_front_do_not_decide_the_dimension(tmp_path, rows, front, group):
    values = [front] * 500 + [row.tolist() for row in rows]
    write_lists(tmp_path / "a.parquet", values, group=group)
    read = all_rows(read_dataset(tmp_path, embedding_column="emb"))
    assert np.isnan(read[:500]).all()
    np.testing.assert_array_equal(read[500:], rows)


def test_dimension_of_large_files_is_that_of_a_spread_sample(tmp_path, rows, caplog):
    values = [[1.0]] * 200 + [row.tolist() for row in rows]
    path = tmp_path / "a.parquet"
    write_lists(path, values, group=100)
    with pq.ParquetFile(path) as file:
        lengths, is_sample = _count_lengths(file, "emb", 3000, at_once=20)
    header = read_column_header(str(path), "emb")._replace(lengths=lengths, is_sample=is_sample)
    assert is_sample
    assert settle_dimension([header])[0].dim == DIM
    # The first of three groups that are looked at is short: it stands for a third of 1,209 rows.
    assert "dimension 7, as most rows have; about 403 rows of other lengths (1)" in caplog.text


@pytest.mark.parametrize(
    "integers", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_integers_are_read_as_they_are(tmp_path, integers):
    limits = np.iinfo(integers)
    ends = [max(limits.min, -(2**53)), min(limits.max, 2**53), 0, 1]
    wanted = [[*ends, n] for n in range(100)]
    write_lists(
        tmp_path / "a.parquet", [*wanted, [1, None, 1, 1, 1]], pa.list_(pa.type_for_alias(integers))
    )
    read = all_rows(read_dataset(tmp_path, embedding_column="emb"))
    assert read.dtype.kind == "f"
    assert [[int(value) for value in row] for row in read[:100]] == wanted
    assert np.isnan(read[100, 1])


@pytest.mark.parametrize(
    "nothing",
    [
        pa.null(),
        pa.list_(pa.null()),
        pa.list_(pa.int64()),
        pa.struct([("vector", pa.null()), ("model", pa.string())]),
        pa.struct([("vector", pa.list_(pa.float64()))]),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["0.parquet", "b.parquet"])
def test_part_of_nulls_of_any_type_is_invalid(tmp_path, rows, nothing, name):
    write_column(tmp_path / "a.parquet", rows)
    write_lists(tmp_path / name, [None] * 60, nothing)
    data = read_dataset(tmp_path, embedding_column="emb")
    read = {part.rows: read_rows(part.embeddings, 0, part.rows) for part in data.parts}
    assert np.isnan(read[60]).all()
    np.testing.assert_array_equal(read[ROWS], rows)


def structs(values):
    """Wrap as a feature of its own beside the model's name."""
    return pa.array(
        [None if one is None else {"model": "m", "vector": one} for one in values],
        pa.struct([("model", pa.string()), ("vector", pa.list_(pa.float32()))]),
    )


def lists_of_one(values, inner=None, outer=-1):
    inner = inner or pa.list_(pa.float32())
    return pa.array([None if one is None else [one] for one in values], pa.list_(inner, outer))


WRAPPERS = {
    "struct": structs,
    "list": lists_of_one,
    "fixed list": lambda values: lists_of_one(values, outer=1),
    "fixed lists": lambda values: lists_of_one(values, pa.list_(pa.float32(), DIM), 1),
    "large lists": lambda values: lists_of_one(values, pa.large_list(pa.float32())),
    "struct of a list of one": lambda values: pa.array(
        [None if one is None else {"vector": [one]} for one in values],
        pa.struct([("vector", pa.list_(pa.list_(pa.float32())))]),
    ),
}


@pytest.mark.parametrize("wrapper", list(WRAPPERS))
def test_one_wrapper_is_taken_off(tmp_path, rows, wrapper):
    values = [row.tolist() for row in rows]
    values[3] = values[100] = None
    table = pa.table({"url": ["x"] * ROWS, "emb": WRAPPERS[wrapper](values)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    read = all_rows(read_dataset(tmp_path, embedding_column="emb"))
    assert np.flatnonzero(np.isnan(read).any(axis=1)).tolist() == [3, 100]
    there = np.arange(ROWS)[~np.isin(np.arange(ROWS), [3, 100])]
    np.testing.assert_array_equal(read[there], rows[there])


def test_rows_of_no_list_or_of_several_in_a_list_are_invalid(tmp_path):
    values = [[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]], None, [[7.0, 8.0]], [[9.0]], [[5.0, 6.0]]]
    write_lists(tmp_path / "a.parquet", values, pa.list_(pa.list_(pa.float32())))
    read = all_rows(read_dataset(tmp_path, embedding_column="emb"))
    nan = [np.nan, np.nan]
    np.testing.assert_array_equal(read, [[1, 2], nan, nan, nan, [7, 8], nan, [5, 6]])


def test_tensors_of_two_axes_are_refused(tmp_path):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((5, 3, 2), np.float32))
    pq.write_table(pa.table({"emb": tensors}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="holds several lists in most rows"):
        read_dataset(tmp_path, embedding_column="emb")


def test_column_beside_embedding_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"embedding_column: .* cannot be given beside it"):
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
    run_here(files, tmp_path / "a", Settings.model_validate(settings))
    settings["read"] = {"embedding_column": "emb"}
    run_here(tmp_path / "column", tmp_path / "b", Settings.model_validate(settings))
    for name in ("clusters", "forest", "invalid"):
        one, other = (pd.read_parquet(tmp_path / out / name) for out in "ab")
        pd.testing.assert_frame_equal(one, other)
    clusters = pd.read_parquet(tmp_path / "b" / "clusters")
    assert len(clusters) == 600
    assert (clusters["cluster_size"] == 2).sum() > 150
    assert not clusters["is_valid"][[7, 11]].any()
