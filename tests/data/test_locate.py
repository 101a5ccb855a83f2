from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_dedup
from dask_dedup.data.locate import Patterns, locate
from dask_dedup.errors import ColumnError, InputError


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(11, 9)).astype("f4")


def lists(rows: np.ndarray) -> pa.Array:
    return pa.array(rows.tolist(), pa.list_(pa.float32()))


def found(place: Path, modality: str = "image", **patterns: str):
    return locate(place, modality, Patterns(**patterns))


def test_read_dataset_of_one_npy_has_its_rows_and_no_columns(rows, tmp_path):
    np.save(tmp_path / "emb.npy", rows)
    data = dask_dedup.read_dataset(tmp_path / "emb.npy")
    assert (data.rows, data.dim, len(data.parts)) == (11, 9, 1)
    np.testing.assert_array_equal(data.embeddings.compute(), rows)
    frame = data.metadata.compute()
    assert list(frame.columns) == []
    assert frame.index.tolist() == list(range(11))


def test_read_dataset_of_a_folder_of_npy_numbers_rows_in_natural_order(rows, tmp_path):
    np.save(tmp_path / "part_9.npy", rows[:7])
    np.save(tmp_path / "part_10.npy", rows[7:])
    data = dask_dedup.read_dataset(tmp_path)
    np.testing.assert_array_equal(data.embeddings.compute(), rows)
    assert data.metadata.compute().index.tolist() == list(range(11))


def test_read_dataset_of_img_emb_without_metadata_is_taken_by_its_own_name_only(
    rows, tmp_path, caplog
):
    (tmp_path / "img_emb").mkdir()
    np.save(tmp_path / "img_emb" / "a.npy", rows)
    with pytest.raises(InputError, match=r"metadata: no such folder.* give the folder of the .npy"):
        dask_dedup.read_dataset(tmp_path)
    assert dask_dedup.read_dataset(tmp_path / "img_emb").rows == 11
    assert "no metadata; a row is known by its position" in caplog.text


@pytest.mark.parametrize("kind", ["list", "fixed", "large"])
def test_read_dataset_of_one_parquet_finds_the_column_of_embeddings(rows, tmp_path, kind, caplog):
    types = {
        "list": pa.list_(pa.float32()),
        "fixed": pa.list_(pa.float32(), 9),
        "large": pa.large_list(pa.float64()),
    }
    table = {
        "url": [f"http://x/{i}" for i in range(11)],
        "vector": pa.array(rows.tolist(), types[kind]),
        "tags": pa.array([["a"]] * 11),
        "box": pa.array([[0.1, 0.2, 0.3, 0.4]] * 11),
        "ratings": pa.array([[0.5] * i for i in range(11)], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table), tmp_path / "one.parquet")
    data = dask_dedup.read_dataset(str(tmp_path / "one.parquet"))
    np.testing.assert_array_equal(data.embeddings.compute(), rows)
    assert list(data.metadata.columns) == ["url", "caption", "tags", "box", "ratings"]
    assert "embeddings are in column 'vector', of dimension 9" in caplog.text


def test_read_dataset_of_a_folder_of_parquet_finds_the_column(rows, tmp_path):
    for i, own in enumerate((rows[:4], rows[4:])):
        pq.write_table(pa.table({"vector": lists(own)}), tmp_path / f"p{i}.parquet")
    data = dask_dedup.read_dataset(tmp_path)
    np.testing.assert_array_equal(data.embeddings.compute(), rows)


def test_read_dataset_finds_the_column_in_a_folder_that_has_metadata_alone(rows, tmp_path):
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table({"vector": lists(rows)}), tmp_path / "metadata" / "p.parquet")
    np.testing.assert_array_equal(dask_dedup.read_dataset(tmp_path).embeddings.compute(), rows)
    pq.write_table(pa.table({"url": ["a"]}), tmp_path / "metadata" / "p.parquet")
    with pytest.raises(InputError, match="img_emb: no such folder"):  # they are what is missing
        dask_dedup.read_dataset(tmp_path)


def test_locate_two_columns_of_embeddings_are_refused_by_name(rows, tmp_path):
    path = tmp_path / "two.parquet"
    pq.write_table(pa.table({"image": lists(rows), "text": lists(rows)}), path)
    with pytest.raises(ColumnError, match=r"2 columns .*'image', 'text'.*--embedding-column"):
        dask_dedup.read_dataset(path)
    assert dask_dedup.read_dataset(path, embedding_column="text").dim == 9


def test_locate_no_column_of_embeddings_names_those_that_are_there(tmp_path):
    path = tmp_path / "none.parquet"
    pq.write_table(pa.table({"url": ["a"], "ids": pa.array([[1, 2]])}), path)
    with pytest.raises(ColumnError, match=r"no column holds .* the columns are url, ids"):
        dask_dedup.read_dataset(path)


def test_locate_npy_and_parquet_side_by_side_are_refused_until_said(rows, tmp_path):
    np.save(tmp_path / "a_0.npy", rows)
    urls = [f"http://x/{i}" for i in range(11)]
    pd.DataFrame({"url": urls}).to_parquet(tmp_path / "b_0.parquet")
    with pytest.raises(InputError, match="side by side"):
        found(tmp_path)
    data = dask_dedup.read_dataset(tmp_path, image_embeddings="*.npy", metadata="*.parquet")
    assert data.metadata.compute()["url"].tolist() == urls


def test_read_dataset_of_one_npy_beside_its_metadata(rows, tmp_path):
    np.save(tmp_path / "a.npy", rows)
    captions = [f"c{i}" for i in range(11)]
    pd.DataFrame({"caption": captions}).to_parquet(tmp_path / "a.parquet")
    data = dask_dedup.read_dataset(tmp_path / "a.npy", metadata="a.parquet")
    assert data.metadata.compute()["caption"].tolist() == captions


@pytest.mark.parametrize(
    ("name", "patterns", "said"),
    [
        ("nothing", {}, "no such folder or file"),
        ("rows.csv", {}, "expected a .npy or .parquet file, got .csv"),
        ("a.npy", {"embedding_column": "x"}, "embedding_column names a column of .parquet files"),
        ("a.npy", {"image_embeddings": "*.npy"}, "are patterns of files in a folder"),
        ("a.parquet", {"metadata": "b.parquet"}, "is metadata itself"),
        ("empty", {}, "img_emb: no such folder. A data set is a folder with"),
    ],
)
def test_locate_refuses_what_does_not_fit_a_file(name, patterns, said, rows, tmp_path):
    (tmp_path / "rows.csv").write_text("url\n")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "a.npy", rows)
    pq.write_table(pa.table({"v": lists(rows)}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=said):
        found(tmp_path / name, **patterns)


def test_read_dataset_without_metadata_refuses_names_of_columns(rows, tmp_path):
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(InputError, match="column 'link' is named, but there is no metadata"):
        dask_dedup.read_dataset(tmp_path / "a.npy", url_column="link")
