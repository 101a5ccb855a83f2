"""`read_dataset`: metadata and embeddings under one row_id, lazily."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from functools import partial

import dask
import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup import InputError, read_dataset
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.schema import ROWS, check_frame

run_here = partial(dask_dedup.run, execute=compute_tasks)


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


# --- metadata -------------------------------------------------------------------------------------


def test_metadata_equals_pandas(dataset, expected, no_compute):
    with no_compute():
        metadata = dataset.metadata
        assert metadata.npartitions == 4
        assert metadata.known_divisions
        assert metadata.divisions == (0, 3, 10, 12, 22)
    pd.testing.assert_frame_equal(metadata.compute(), expected, check_column_type=False)


def test_metadata_has_the_schema_of_rows_lazily_and_computed(dataset):
    check_frame(dataset.metadata._meta, ROWS, "meta")
    check_frame(dataset.metadata.compute(), ROWS, "computed")
    pd.testing.assert_series_equal(dataset.metadata.dtypes, dataset.metadata.compute().dtypes)


def test_metadata_each_partition_is_one_filled_part(dataset, expected):
    for i, part in enumerate(dataset.filled_parts):
        own = dataset.metadata.partitions[i].compute()
        pd.testing.assert_frame_equal(
            own, expected.iloc[part.row_start : part.row_stop], check_column_type=False
        )


@pytest.mark.parametrize("names", [["url"], ["width", "url"], ["tags"], []])
def test_metadata_selected_columns_equal_pandas(dataset, expected, names, no_compute):
    with no_compute():
        chosen = dataset.metadata[names]
    pd.testing.assert_frame_equal(chosen.compute(), expected[names], check_column_type=False)


def test_metadata_rows_by_row_id_equal_pandas(dataset, expected):
    for row_id in (0, 2, 3, 12, 22):
        assert (
            dataset.metadata["source_row_id"].loc[row_id].compute().tolist()
            == expected.loc[[row_id], "source_row_id"].tolist()
        )
    assert dataset.metadata.loc[9:13].compute().index.tolist() == [9, 10, 11, 12, 13]


def test_metadata_aggregates_equal_pandas(dataset, expected):
    assert dataset.metadata["width"].sum().compute() == expected["width"].sum()
    assert dataset.metadata["url"].isna().sum().compute() == expected["url"].isna().sum()
    assert len(dataset.metadata) == len(expected)


def test_metadata_selecting_url_reads_no_other_column_and_no_embedding(
    dataset, destroy_other_columns
):
    shutil.rmtree(os.path.join(dataset.path, "img_emb"))
    for part in dataset.parts:
        destroy_other_columns(part.metadata_path, ["URL"])
    urls = dataset.metadata["url"].compute()
    assert len(urls) == 23
    assert urls[1] == "http://x/1.jpg"


def test_metadata_selecting_nothing_reads_nothing_and_counts_rows(dataset, destroy_other_columns):
    for part in dataset.parts:
        destroy_other_columns(part.metadata_path, [])
    assert len(dataset.metadata[[]].compute()) == 23
    with pytest.raises(InputError, match="cannot be read"):
        dataset.metadata["url"].compute()


def test_metadata_columns_that_only_some_parts_have_are_null_elsewhere(tmp_path, write_dataset):
    frames = [
        pd.DataFrame({"url": ["a", "b"], "x": [1, 2]}),
        pd.DataFrame({"caption": ["c"], "y": [None]}),
        pd.DataFrame({"url": ["d"], "caption": ["e"], "y": ["f"]}),
    ]
    arrays = [np.ones((len(frame), 3), np.float32) for frame in frames]
    got = read_dataset(write_dataset(tmp_path / "d", arrays, frames)).metadata.compute()
    assert got.columns.tolist() == ["url", "caption", "x", "y"]
    assert [[None if pd.isna(v) else v for v in row] for row in got.to_numpy().tolist()] == [
        ["a", None, 1, None],
        ["b", None, 2, None],
        [None, "c", None, None],
        ["d", "e", None, "f"],
    ]


def test_metadata_of_one_row_in_one_part(tmp_path, write_dataset):
    dataset = read_dataset(write_dataset(tmp_path / "d", [np.ones((1, 3), np.float16)]))
    assert dataset.metadata.divisions == (0, 0)
    assert dataset.metadata.compute().index.tolist() == [0]


def test_metadata_joins_on_row_id_without_a_shuffle(dataset, expected):
    whole = dataset.metadata
    joined = whole[["url"]].join(whole[["width"]])
    assert joined.npartitions == whole.npartitions
    pd.testing.assert_frame_equal(
        joined.compute(), expected[["url", "width"]], check_column_type=False
    )


# --- embeddings -----------------------------------------------------------------------------------


def test_embeddings_equal_concatenation(dataset, arrays, no_compute):
    with no_compute():
        embeddings = dataset.embeddings
        assert embeddings.chunks == ((3, 7, 2, 11), (5,))
        assert embeddings.dtype == np.float64
    computed = embeddings.compute()
    assert computed.dtype == embeddings.dtype
    np.testing.assert_array_equal(computed, np.concatenate(arrays))


@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        (["<f2", "<f2"], np.float16),
        ([">f4", ">f4"], np.float32),
        (["<f2", ">f4"], np.float32),
        (["<f4", "<f8"], np.float64),
    ],
)
def test_embeddings_dtype_is_the_widest_of_the_parts(tmp_path, write_dataset, dtypes, common):
    arrays = [np.full((2, 3), 1 / 3, dtype) for dtype in dtypes]
    embeddings = read_dataset(write_dataset(tmp_path / "d", arrays)).embeddings
    assert embeddings.dtype == embeddings.compute().dtype == common
    assert embeddings.dtype.isnative
    np.testing.assert_array_equal(embeddings.compute(), np.concatenate(arrays))


def test_embeddings_of_some_rows_read_only_their_parts(dataset, arrays):
    for part in dataset.filled_parts[1:]:
        os.unlink(part.embeddings.path)
    np.testing.assert_array_equal(dataset.embeddings[1:3].compute(), arrays[0][1:3])


def test_text_embeddings_are_lazy_and_equal_concatenation(tmp_path, write_dataset, no_compute):
    folder = write_dataset(tmp_path / "d", [np.ones((n, 3), np.float32) for n in (2, 3)])
    (folder / "text_emb").mkdir()
    texts = [np.random.default_rng(n).normal(size=(n, 7)).astype(np.float16) for n in (2, 3)]
    for i, text in enumerate(texts):
        np.save(folder / "text_emb" / f"text_emb_{i}.npy", text)
    with no_compute():
        dataset = read_dataset(folder)
        lazy = dataset.text_embeddings
    np.testing.assert_array_equal(lazy.compute(), np.concatenate(texts))
    assert dataset.dim == 3


def test_text_embeddings_without_files_are_none(dataset):
    assert dataset.text_embeddings is None


# --- the whole ------------------------------------------------------------------------------------


def test_read_dataset_parts_come_in_natural_order(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [np.full((1, 2), i, np.float32) for i in range(12)])
    dataset = read_dataset(folder)
    assert dataset.embeddings.compute()[:, 0].tolist() == list(range(12))
    captions = dataset.metadata["caption"].compute().tolist()
    assert captions == [f"{i}-0" for i in range(12)]


def test_read_dataset_names_of_columns_can_be_given(tmp_path, write_dataset):
    frame = pd.DataFrame({"link": ["a"], "alt": ["b"], "url": ["other"]})
    folder = write_dataset(tmp_path / "d", [np.ones((1, 2), np.float32)], [frame])
    metadata = read_dataset(folder, url_column="link", caption_column="alt").metadata.compute()
    assert metadata.iloc[0].to_dict() == {"url": "a", "caption": "b", "source_url": "other"}


def test_read_dataset_example_has_the_counts_of_its_files(clipart):
    dataset = read_dataset(clipart)
    files = sorted((clipart / "img_emb").iterdir())
    assert dataset.rows == sum(len(np.load(file, mmap_mode="r")) for file in files)
    np.testing.assert_array_equal(
        dataset.embeddings[-3:].compute(), np.load(files[-1], mmap_mode="r")[-3:]
    )


def test_read_dataset_url_column_that_is_nowhere_is_refused(dataset):
    with pytest.raises(InputError, match=r"metadata_0\.parquet: no column 'url' \(url_column\)"):
        read_dataset(dataset.path, url_column="url")


def test_dataset_travels_to_workers_by_pickle(dataset):
    twin = pickle.loads(pickle.dumps(dataset))
    assert twin == dataset
    np.testing.assert_array_equal(twin.embeddings.compute(), dataset.embeddings.compute())


# --- text embeddings beside images ----------------------------------------------------------------


def no_files(folder) -> None:
    for path in folder.iterdir():
        path.unlink()


TEXT_FAULTS = {
    "none": (no_files, r"text_emb: expected \*\.npy files, found none"),
    "one is missing": (
        lambda folder: (folder / "text_emb_1.npy").unlink(),
        "2 text embedding files, but .* has 3 metadata files.*; text embeddings lack 1",
    ),
    "another number": (
        lambda folder: (folder / "text_emb_1.npy").rename(folder / "text_emb_4.npy"),
        "text embeddings lack 1, metadata lack 4",
    ),
    "other rows": (
        lambda folder: np.save(folder / "text_emb_2.npy", np.ones((5, 7), "f4")),
        r"text_emb_2\.npy: 5 embeddings, but .*metadata_2\.parquet has 4 rows",
    ),
    "another dimension": (
        lambda folder: np.save(folder / "text_emb_0.npy", np.ones((2, 8), "f4")),
        r"text_emb_0\.npy: embeddings have dimension 8, but .*text_emb_1\.npy has 7",
    ),
    "damaged": (
        lambda folder: (folder / "text_emb_1.npy").write_bytes(b"junk"),
        r"text_emb_1\.npy: expected a \.npy file",
    ),
}


@pytest.fixture
def both(tmp_path, write_dataset):
    images, texts = ([np.ones((n, dim), np.float32) for n in (2, 3, 4)] for dim in (5, 7))
    return write_dataset(tmp_path / "both", images, texts=texts)


@pytest.mark.parametrize("fault", list(TEXT_FAULTS))
def test_text_embeddings_that_do_not_fit_are_left_out_and_reported(both, fault, caplog):
    spoil, says = TEXT_FAULTS[fault]
    assert read_dataset(both).text_embeddings is not None
    spoil(both / "text_emb")
    caplog.clear()
    dataset = read_dataset(both)
    assert dataset.rows == 9
    assert dataset.text_embeddings is None
    (message,) = caplog.messages
    assert re.search(f"text embeddings are left out: .*{says}", message)
    with pytest.raises(InputError, match=f"its text embeddings cannot be used. .*{says}"):
        dataset.view("text")
    with pytest.raises(InputError):
        read_dataset(both, modality="text")


@pytest.mark.parametrize("fault", list(TEXT_FAULTS))
def test_run_of_images_does_not_look_at_texts(both, fault, tmp_path, caplog):
    TEXT_FAULTS[fault][0](both / "text_emb")
    assert run_here(both, tmp_path / "out")["rows"] == 9
    assert "text" not in caplog.text
    before = os.stat(tmp_path / "out" / "summary.json").st_mtime_ns
    shutil.rmtree(both / "text_emb")
    run_here(both, tmp_path / "out")
    assert os.stat(tmp_path / "out" / "summary.json").st_mtime_ns == before


def test_text_embeddings_by_a_pattern_that_matches_nothing_are_left_aside(both):
    dataset = read_dataset(both, text_embeddings="texts/*.npy")
    assert dataset.text_embeddings is None
    with pytest.raises(InputError, match=r"texts/\*\.npy: no file matches this pattern"):
        dataset.view("text")


def test_repr_is_a_line_and_html_escapes_names(tmp_path, write_dataset):
    frame = pd.DataFrame({"url": ["u"] * 3, "<b>x</b>": range(3)})
    folder = write_dataset(tmp_path / "<i>", [np.ones((3, 2), "f4")], [frame])
    data = read_dataset(folder)
    assert repr(data) == f"<Dataset {folder}: 3 rows in 1 part, dimension 2, image>"
    html = data._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "&lt;i&gt;</b>" in html
    assert not {"<i>", "<b>x"} & {html[i : i + n] for i in range(len(html)) for n in (3, 4)}
    assert "2 (image embeddings)" in html
