"""`fit-compressor` and `compress`: what they write, print and refuse."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dask_dedup import NetworkSettings, fit_compressor, load_model, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.compressors.base import digest_tensors

QUICK = ["--epochs", "2", "--batch", "32", "--width", "16"]


def command(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def rows():
    images = np.random.default_rng(0).normal(size=(200, 10)) + 0.5
    return images.astype("f4"), (images + 0.2).astype("f4")


@pytest.fixture
def data(tmp_path, write_dataset, rows):
    images, texts = (np.split(array, [120]) for array in rows)
    return write_dataset(tmp_path / "data", images, texts=texts)


def test_fit_compressor_writes_the_model_that_python_fits(tmp_path, data):
    model = tmp_path / "model"
    arguments = [*QUICK, "--kind", "snip", "--dim", 4, "--modality", "both", "--seed", 3]
    result = command("fit-compressor", data, model, *arguments)
    assert result.exit_code == 0, result.output
    for text in ("snip, 10 to 4 dimensions", "200 usable ones", "validation loss", str(model)):
        assert text in result.output
    settings = NetworkSettings(epochs=2, batch=32, width=16)
    same = fit_compressor(read_dataset(data), "snip", 4, modality="both", settings=settings, seed=3)
    loaded = load_model(model)
    assert loaded.header == same.header
    assert digest_tensors(loaded) == digest_tensors(same)
    curve = pd.read_csv(model / "curve.csv")
    assert curve["validation_loss"].tolist() == [
        entry["validation_loss"] for entry in same.header.statistics["curve"]
    ]
    assert (model / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_fit_compressor_of_an_existing_model_needs_overwrite(tmp_path, data):
    arguments = ["fit-compressor", data, tmp_path / "model", "--kind", "pca", "--dim", 4]
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    assert "squared length kept" in result.output
    result = command(*arguments)
    assert result.exit_code == 2
    assert "model: exists. Choose another name, or replace it with --overwrite." in result.output
    result = command(*arguments, "--overwrite", "--quiet", "--modality", "text")
    assert (result.exit_code, result.output) == (0, "")
    assert load_model(tmp_path / "model").header.modality == "text"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dim", 11], "dim: expected 1 to 10, the dimension of the embeddings, got 11"),
        (["--dim", 4, "--batch", 1], "batch: Input should be greater than or equal to 2, got 1"),
        (["--dim", 4, "--clip-weight", 1], "--clip-weight: the contrastive term is between"),
        (["--dim", 4, "--modality", "text"], "text_emb: no such folder. Modality text"),
        (["--dim", 4, "--modality", "both"], "has no text embeddings as it was read"),
    ],
)
def test_fit_compressor_with_wrong_settings_writes_nothing(
    tmp_path, write_dataset, rows, arguments, message
):
    data = write_dataset(tmp_path / "data", [rows[0]])
    result = command("fit-compressor", data, tmp_path / "model", *arguments)
    assert result.exit_code == 2
    assert result.output.count("dask-dedup:") == 1
    assert message in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_compress_with_workers_then_again_then_otherwise(tmp_path, data, rows):
    command("fit-compressor", data, tmp_path / "model", "--kind", "pca", "--dim", 4, "-q")
    arguments = ["compress", data, tmp_path / "model", tmp_path / "out", "--workers", 1]
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    assert "image: 200 rows, 0 of them without values" in result.output
    got = read_dataset(tmp_path / "out").embeddings.compute()
    expected = load_model(tmp_path / "model").transform(rows[0])
    np.testing.assert_allclose(got, expected, atol=5e-4)
    assert not (tmp_path / "out" / "stages").exists()
    result = command(*arguments)
    assert result.exit_code == 0
    assert "finished before with these settings; nothing to do" in result.output
    result = command(*arguments, "--dtype", "float32")
    assert result.exit_code == 2
    assert "by another model, with other settings" in result.output


def test_compress_with_a_damaged_model_is_refused(tmp_path, data):
    command("fit-compressor", data, tmp_path / "model", "--kind", "pca", "--dim", 4, "-q")
    header = json.loads((tmp_path / "model" / "model.json").read_text())
    header["kind"] = "opq"
    (tmp_path / "model" / "model.json").write_text(json.dumps(header))
    result = command("compress", data, tmp_path / "model", tmp_path / "out")
    assert result.exit_code == 2
    assert "damaged header (kind: Input should be 'pca', 'mse' or 'snip')" in result.output
    assert not (tmp_path / "out").exists()
