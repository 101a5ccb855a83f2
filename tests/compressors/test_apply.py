"""Compressing a data set: what is written, resumed, refused."""

import os
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from upath import UPath

import dask_dedup
from dask_dedup import (
    InputError,
    NetworkSettings,
    OutputError,
    Settings,
    SettingsError,
    compress_dataset,
    fit_compressor,
    load_model,
    read_dataset,
    save_model,
)
from dask_dedup.compressors.apply import write_compressed
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

QUICK = NetworkSettings(epochs=1, batch=32, width=16)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(300, 10)) + 0.5
    images[7], images[200] = np.nan, 0
    texts = images + 0.3 * rng.normal(size=(300, 10))
    return images.astype("f4"), texts.astype("f2")


@pytest.fixture
def data(tmp_path, write_dataset, rows):
    images, texts = (np.split(array, [1, 100, 100, 250]) for array in rows)
    return read_dataset(write_dataset(tmp_path / "data", images, texts=texts))


@pytest.fixture
def model(data):
    return fit_compressor(data, "snip", 4, modality="both", settings=QUICK)


def names(path):
    return sorted(p.name for p in path.iterdir())


def test_compress_dataset_makes_a_data_set_of_the_same_layout(tmp_path, data, model, rows):
    out = tmp_path / "out"
    summary = compress_dataset(data, model, out, dtype="float32")
    assert names(out) == [
        "compress.json",
        "img_emb",
        "metadata",
        "model",
        "results.json",
        "summary.json",
        "text_emb",
    ]
    made = read_dataset(out)
    assert [part.rows for part in made.parts] == [part.rows for part in data.parts]
    for array, lazy in zip(rows, (made.embeddings, made.text_embeddings), strict=True):
        got = lazy.compute()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, model.transform(array), atol=1e-6)
    assert summary["zero_rows"] == {"image": 2, "text": 1}
    assert summary["rows"] == 300
    assert made.metadata.compute().equals(data.metadata.compute())
    for kind in ("img_emb", "metadata", "text_emb"):
        assert names(out / kind) == names(tmp_path / "data" / kind)
    a, b = (path / "metadata" / "metadata_1.parquet" for path in (out, tmp_path / "data"))
    assert os.path.samefile(a, b)
    copy = load_model(out / "model")
    np.testing.assert_array_equal(copy.transform(rows[0]), model.transform(rows[0]))


def test_compress_dataset_with_a_model_in_a_store_gives_the_same(tmp_path, data, model):
    stored = UPath("memory://compress/model")
    save_model(model, stored)
    compress_dataset(data, stored, tmp_path / "stored")
    compress_dataset(data, model, tmp_path / "given")
    for path in (tmp_path / "given" / "img_emb").iterdir():
        assert path.read_bytes() == (tmp_path / "stored" / "img_emb" / path.name).read_bytes()
    stored.fs.rm("/compress", recursive=True)


def test_compress_dataset_result_can_be_run(tmp_path, data, model):
    compress_dataset(data, model, tmp_path / "out")
    settings = Settings.model_validate({"read": {"modality": "text"}, "audit": {"queries": 0}})
    summary = run_here(tmp_path / "out", tmp_path / "run", settings)
    assert (summary["rows"], summary["invalid_rows"]) == (300, 1)


def test_compress_dataset_float16_is_the_rounded_float32(tmp_path, data, model, rows):
    compress_dataset(data, model, tmp_path / "half", modality="image")
    assert not (tmp_path / "half" / "text_emb").exists()
    half = read_dataset(tmp_path / "half").embeddings.compute()
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, model.transform(rows[0]), atol=5e-4)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_compress_dataset_takes_what_the_model_was_fitted_on(tmp_path, data, rows, modality):
    model = fit_compressor(data, "pca", 3, modality=modality)
    compress_dataset(data, model, tmp_path / "out")
    made = read_dataset(tmp_path / "out", modality=modality)
    assert made.dim == 3
    other = {"image": "text_emb", "text": "img_emb"}[modality]
    assert not (tmp_path / "out" / other).exists()


def test_write_compressed_in_blocks_gives_the_same(tmp_path, data, model, rows):
    save_model(model, tmp_path / "model")
    found = []
    for part in data.filled_parts:
        path = tmp_path / f"{part.index}.npy"
        arguments = part, str(tmp_path / "model"), path, "float32", "cpu", 1
        assert (
            write_compressed(*arguments, block_bytes=4 * 10 * 7)["rows"] == part.rows
        )  # seven rows
        found.append(np.load(path))
    np.testing.assert_allclose(np.concatenate(found), model.transform(rows[0]), atol=1e-6)


def test_compress_dataset_continues_where_it_was_stopped(tmp_path, data, model):
    done = []

    def three(tasks, on_result):
        compute_tasks(tasks[:3], on_result)
        raise KeyboardInterrupt

    def counted(tasks, on_result):
        done.append(len(tasks))
        return compute_tasks(tasks, on_result)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compress_dataset(data, model, out, execute=three)
    assert not (out / "img_emb").exists()
    assert not (out / "summary.json").exists()
    compress_dataset(data, model, out, execute=counted)
    assert done == [10 - 3]
    compress_dataset(data, model, tmp_path / "whole")
    for kind in ("img_emb", "text_emb"):
        for name in names(out / kind):
            expected = (tmp_path / "whole" / kind / name).read_bytes()
            assert (out / kind / name).read_bytes() == expected
    compress_dataset(data, model, out, execute=counted)
    assert done == [10 - 3]


def test_compress_dataset_with_other_settings_is_refused(tmp_path, data, model):
    out = tmp_path / "out"
    compress_dataset(data, model, out)
    other = fit_compressor(data, "snip", 4, modality="both", settings=QUICK, seed=1)
    same_header = type(model)(model.header, other.network)
    for arguments in (
        {"dtype": "float32"},
        {"modality": "image"},
        {"model": other},
        {"model": same_header},
    ):
        with pytest.raises(OutputError, match="by another model, with other settings"):
            compress_dataset(data, **{"model": model, "out": out, **arguments})
    compress_dataset(data, model, out, modality="image", overwrite=True)
    assert names(out) == [
        "compress.json",
        "img_emb",
        "metadata",
        "model",
        "results.json",
        "summary.json",
    ]


def test_compress_dataset_into_something_else_is_refused(tmp_path, data, model):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(OutputError, match="holds files of something else"):
        compress_dataset(data, model, tmp_path / "out", overwrite=True)
    run_here(data.path, tmp_path / "run")
    with pytest.raises(OutputError, match="holds files of something else"):
        compress_dataset(data, model, tmp_path / "run")


def test_compress_dataset_that_does_not_fit_the_model_is_refused(tmp_path, write_dataset, model):
    data = read_dataset(write_dataset(tmp_path / "narrow", [np.eye(9, dtype="f4")]))
    with pytest.raises(InputError, match="has no text embeddings"):
        compress_dataset(data, model, tmp_path / "out")
    with pytest.raises(InputError, match="have dimension 9, but the model was fitted on 10"):
        compress_dataset(data, model, tmp_path / "out", modality="image")
    with pytest.raises(SettingsError, match="dtype: expected float16 or float32, got 'int8'"):
        compress_dataset(data, model, tmp_path / "out", dtype="int8")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system: hard links cannot go there."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_compress_dataset_copies_metadata_where_links_cannot_go(tmp_path, other_disk, data, model):
    save_model(model, tmp_path / "model")
    compress_dataset(data, tmp_path / "model", other_disk / "out")
    shutil.rmtree(data.path)
    assert pq.read_table(other_disk / "out" / "metadata").num_rows == 300


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["pca", "mse", "snip"])
def test_compress_dataset_on_a_gpu_differs_by_rounding(tmp_path, data, kind):
    model = fit_compressor(data, kind, 4, modality="both", settings=QUICK, device="cuda")
    save_model(model, tmp_path / "model")
    for device in ("cpu", "cuda"):
        out, model_path = tmp_path / device, tmp_path / "model"
        compress_dataset(data, model_path, out, modality="image", dtype="float32", device=device)
    here, there = (
        np.concatenate([np.load(path) for path in sorted((tmp_path / device).glob("img_emb/*"))])
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there, here, atol=2e-6)
    assert len(here) == 300
    assert np.linalg.norm(here, axis=1).max() > 0.99
