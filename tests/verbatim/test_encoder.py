"""Encoders from files: TorchScript, ONNX where its runtime is there, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dask_dedup.errors import InputError, SettingsError
from dask_dedup.verbatim.encoder import encode_pictures, load_encoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit


class _Means(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gives the means of the colours."""
    path = tmp_path_factory.mktemp("encoder") / "means.torchscript.pt"
    torch.jit.trace(_Means(), torch.zeros(1, 3, 8, 8)).save(str(path))
    return path


def test_encode_pictures_equals_the_means_of_normalised_colours(script: Path) -> None:
    pictures = np.random.default_rng(0).random((40, 8, 8, 3), np.float32)
    found = encode_pictures(pictures, load_encoder(str(script)))
    means = (pictures.mean(axis=(1, 2)) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("batch", ["n", 1, 4], ids=["any", "one", "four"])
def test_encode_pictures_by_onnx_equals_torchscript(
    script: Path, tmp_path: Path, batch: str | int
) -> None:
    """Many ONNX files take a fixed number of pictures, most of them one."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [make.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0)],
        "means",
        [make.make_tensor_value_info("x", kind, [batch, 3, "height", "width"])],
        [make.make_tensor_value_info("means", kind, [batch, 3])],
    )
    opset = [make.make_opsetid("", 13)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "means.onnx")
    pictures = np.random.default_rng(0).random((41, 8, 8, 3), np.float32)
    found = encode_pictures(pictures, load_encoder(str(tmp_path / "means.onnx")))
    expected = encode_pictures(pictures, load_encoder(str(script)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_load_encoder_of_no_onnx_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(InputError, match="is no ONNX file that can be loaded"):
        load_encoder(str(tmp_path / "text.onnx"))


def test_load_encoder_of_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="is no TorchScript file"):
        load_encoder(str(path))
    (tmp_path / "text.ts").write_text("no network")
    with pytest.raises(InputError, match="is no TorchScript file"):
        load_encoder(str(tmp_path / "text.ts"))


def test_load_encoder_of_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected a TorchScript file"):
        load_encoder(str(tmp_path / "model.bin"))


@pytest.mark.parametrize(
    ("encode", "text"),
    [
        (lambda given: given[0], "float32 of shape \\(3, 8, 8\\) for 2 pictures"),
        (lambda given: np.full((len(given), 2), np.nan), "expected a finite row of numbers"),
        (lambda given: given[:, 7], "the encoder fails on pictures of \\(2, 3, 8, 8\\)"),
    ],
)
def test_encode_pictures_by_something_else_is_refused(encode, text: str) -> None:
    with pytest.raises(InputError, match=text):
        encode_pictures(np.zeros((2, 8, 8, 3), np.float32), encode)
