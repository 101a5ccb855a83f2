"""`--modality text`: the whole chain on the captions' embeddings."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

import dask_dedup
from dask_dedup import InputError, Settings, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.files import read_json

run_here = partial(dask_dedup.run, execute=compute_tasks)

TEXT = Settings.model_validate({"read": {"modality": "text"}, "audit": {"queries": 50}})


def planted(seed, rows, dim, groups):
    """Return random directions, of which the last hundred repeat some of the first with noise."""
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(rows, dim))
    array[-100:] = array[rng.integers(groups, size=100)] + 0.08 * rng.normal(size=(100, dim))
    return array.astype("f4")


@pytest.fixture(scope="module")
def rows():
    return planted(0, 700, 24, 30), planted(1, 700, 16, 40)


@pytest.fixture
def data(tmp_path, write_dataset, rows):
    images, texts = (np.split(array, [150, 151, 500]) for array in rows)
    return write_dataset(tmp_path / "data", images, texts=texts)


def groups_of(array, threshold):
    near = 1 - cdist(array.astype("f8"), array.astype("f8"), "cosine") >= threshold
    labels = connected_components(near, directed=False)[1]
    return pd.Series(np.arange(len(array))).groupby(labels).transform("min").to_numpy()


def clusters_of(out):
    return pd.read_parquet(out / "clusters")["cluster_id"].to_numpy()


def test_run_modality_text_finds_scipys_clusters_of_the_texts(tmp_path, data, rows):
    summary = run_here(data, tmp_path / "out", TEXT)
    expected = groups_of(rows[1], 0.95)
    assert len(set(expected)) == 600
    np.testing.assert_array_equal(clusters_of(tmp_path / "out"), expected)
    assert summary["modality"] == "text"
    assert summary["audit"]["pair_recall"] == 1.0


def test_run_modality_text_does_not_need_the_images(tmp_path, data, rows):
    shutil.rmtree(data / "img_emb")
    run_here(data, tmp_path / "out", TEXT)
    np.testing.assert_array_equal(clusters_of(tmp_path / "out"), groups_of(rows[1], 0.95))


def test_run_adc_modality_text_finds_scipys_clusters_of_the_texts(tmp_path, data, rows):
    adc = {"factory": "IVF8,PQ4x6", "nprobe": 8, "k": 4, "tolerance": 3.0}
    settings = Settings.model_validate({**TEXT.model_dump(), "finder": "adc", "adc": adc})
    summary = run_here(data, tmp_path / "out", settings)
    assert (summary["finder"], summary["modality"]) == ("adc", "text")
    np.testing.assert_array_equal(clusters_of(tmp_path / "out"), groups_of(rows[1], 0.95))


def test_run_another_modality_in_the_same_folder_searches_again(tmp_path, data, rows):
    run_here(data, tmp_path / "out", TEXT, keep_stages=True)
    before = read_json(tmp_path / "out" / "stages" / "join" / "manifest.json")
    run_here(
        data,
        tmp_path / "out",
        Settings.model_validate({"audit": {"queries": 50}}),
        keep_stages=True,
    )
    after = read_json(tmp_path / "out" / "stages" / "join" / "manifest.json")
    assert before["settings"]["read.modality"] == "text"
    assert after["settings"]["read.modality"] == "image"
    np.testing.assert_array_equal(clusters_of(tmp_path / "out"), groups_of(rows[0], 0.95))


def test_run_modality_text_without_text_embeddings_is_refused(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.eye(4, dtype="f4")])
    arguments = ["run", str(data), str(tmp_path / "out"), "--modality", "text"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert "text_emb: no such folder. Modality text compares the captions" in result.output
    assert not (tmp_path / "out").exists()


def test_read_dataset_of_an_unknown_modality_is_refused(data):
    with pytest.raises(InputError, match="expected image or text, got 'video'"):
        read_dataset(data, modality="video")


def test_view_of_the_texts_is_the_data_set_read_as_text(data, rows):
    view, read = read_dataset(data).view("text"), read_dataset(data, modality="text")
    np.testing.assert_array_equal(view.embeddings, rows[1])
    np.testing.assert_array_equal(read.embeddings, rows[1])
    assert (view.dim, view.modality) == (read.dim, read.modality) == (16, "text")
    assert view.view("text") is view
    assert read.text_embeddings is not None


def test_view_of_what_was_not_read_is_refused(tmp_path, data, write_dataset):
    with pytest.raises(InputError, match="has no image embeddings as it was read"):
        read_dataset(data, modality="text").view("image")
    plain = write_dataset(tmp_path / "plain", [np.eye(4, dtype="f4")])
    with pytest.raises(InputError, match="has no text embeddings as it was read"):
        read_dataset(plain).view("text")
