"""Models on disk: round trips, and every way in which a folder is not one."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dask_dedup import NetworkSettings, fit_compressor, load_model, read_dataset, save_model
from dask_dedup.compressors.base import check_model_path, digest_tensors
from dask_dedup.errors import InputError, OutputError, SettingsError

QUICK = NetworkSettings(epochs=2, batch=32, width=16)


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(200, 10)).astype("f4") + 0.5


@pytest.fixture(scope="module")
def models(tmp_path_factory, write_dataset, rows):
    data = read_dataset(write_dataset(tmp_path_factory.mktemp("base") / "data", [rows]))
    fit = {kind: fit_compressor(data, kind, 4, settings=QUICK) for kind in ("pca", "mse", "snip")}
    layers = QUICK.model_copy(update={"start": "random", "depth": 3})
    return {**fit, "layers": fit_compressor(data, "snip", 4, settings=layers)}


@pytest.fixture
def saved(tmp_path, models):
    save_model(models["snip"], tmp_path / "model")
    return tmp_path / "model"


def change_header(folder, **changes):
    header = json.loads((folder / "model.json").read_text())
    for key, value in changes.items():
        if value is None:
            del header[key]
        else:
            header[key] = value
    (folder / "model.json").write_text(json.dumps(header))


def change_tensors(folder, change):
    """Change the tensors, and the header's digest with them, so that other checks are reached."""
    import hashlib

    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    change_header(folder, tensors_sha256=digest)


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pca", "mse", "snip", "layers"])
def test_load_model_gives_back_what_was_saved(tmp_path, models, rows, name):
    model = models[name]
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.header == model.header
    assert (loaded.kind, loaded.dim_in, loaded.dim_out) == (model.kind, 10, 4)
    assert digest_tensors(loaded) == digest_tensors(model)
    np.testing.assert_array_equal(loaded.transform(rows), model.transform(rows))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("name", ["pca", "mse", "snip"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_transform_gives_unit_rows_and_zeros_for_unusable_ones(models, rows, name, dtype):
    bad = rows[:6].astype(dtype)
    bad[1, 3], bad[2, 0], bad[3] = np.nan, np.inf, 0
    out = models[name].transform(bad)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[1:4], 0)
    np.testing.assert_allclose(np.linalg.norm(out[[0, 4, 5]], axis=1), 1, atol=1e-5)
    alone = models[name].transform(bad[4:])
    np.testing.assert_allclose(out[4:], alone, atol=1e-5)
    longer = models[name].transform(4 * bad)  # a row's length plays no part
    np.testing.assert_allclose(out, longer, atol=1e-5)


@pytest.mark.parametrize("name", ["pca", "mse", "snip"])
def test_transform_takes_no_rows_and_leaves_its_input_alone(models, rows, name):
    assert models[name].transform(rows[:0]).shape == (0, 4)
    given = rows[:3].copy()
    given[1] = 0
    before = given.copy()
    models[name].transform(given)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("name", ["pca", "mse"])
@pytest.mark.parametrize(
    "wrong", [np.ones((3, 9), "f4"), np.ones(10, "f4"), np.ones((3, 10), "i4")]
)
def test_transform_of_other_rows_is_refused(models, name, wrong):
    with pytest.raises(InputError, match=r"expected rows of floating point, shape \(n, 10\)"):
        models[name].transform(wrong)


# --- where a model may be written -----------------------------------------------------------------


def test_save_model_replaces_a_model_only_when_asked(saved, models):
    with pytest.raises(OutputError, match=r"exists. Choose another name, or replace it with"):
        save_model(models["pca"], saved)
    assert load_model(saved).kind == "snip"
    save_model(models["pca"], saved, overwrite=True)
    assert load_model(saved).kind == "pca"
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model"]


@pytest.mark.parametrize("there", ["file", "folder"])
def test_save_model_never_overwrites_something_else(tmp_path, models, there):
    path = tmp_path / "mine"
    if there == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "model.json").write_text("{}")
    with pytest.raises(OutputError, match="is no model of this tool; it is not overwritten"):
        save_model(models["pca"], path, overwrite=True)
    with pytest.raises(OutputError, match="exists"):
        check_model_path(path, overwrite=False)


def test_save_model_below_a_file_is_refused(tmp_path, models):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(models["pca"], tmp_path / "file" / "model")


# --- folders that are no models -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not the header of a compressor"),
        ({"format": None}, "not the header of a compressor"),
        ({"format_version": 2}, "format version 2; this release reads version 1"),
        ({"kind": "opq"}, "damaged header .*kind: Input should be 'pca', 'mse' or 'snip'"),
        ({"kind": None}, "damaged header .*kind: Field required"),
        ({"dim_out": 0}, "damaged header .*dim_out"),
        ({"dim_out": "many"}, "damaged header .*dim_out"),
        ({"dim_out": 5}, r"expected layers.2.weight to be float32 of shape \(5, 16\)|expected "),
        ({"kind": "pca"}, "expected the tensors axes, got beside.weight"),
        ({"modality": "video"}, "damaged header .*modality"),
        ({"settings": {"width": -1}}, "damaged header .*width"),
        ({"settings": {"breadth": 1}}, "damaged header .*unknown setting breadth"),
        ({"settings": {"width": 99}}, "to be float32 of shape"),
        ({"tensors_sha256": None}, "damaged, or of another model"),
        ({"surprise": 1}, "damaged header .*surprise"),
    ],
)
def test_load_model_with_a_wrong_header_is_refused(saved, changes, message):
    change_header(saved, **changes)
    with pytest.raises(InputError, match=message):
        load_model(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", pickle.dumps({"kind": "pca"})])
def test_load_model_whose_header_is_no_json_object_is_refused(saved, content):
    (saved / "model.json").write_bytes(content)
    with pytest.raises(InputError, match=r"model.json: not the header of a compressor \(JSON"):
        load_model(saved)


def test_load_model_of_nothing_or_of_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no such file. A model is a folder with model.json"):
        load_model(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "file")


class Trap:
    """Unpickled, it would leave a mark."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("known_digest", [True, False])
def test_load_model_whose_tensors_are_a_pickle_runs_nothing(saved, known_digest):
    import hashlib

    torch.save({"layers.0.weight": Trap()}, saved / "model.safetensors")
    digest = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    if known_digest:
        change_header(saved, tensors_sha256=digest)
    message = "not a safetensors file" if known_digest else "damaged, or of another model"
    with pytest.raises(InputError, match=message):
        load_model(saved)


def test_load_model_with_a_truncated_or_missing_file_is_refused(saved):
    content = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(content[:-7])
    with pytest.raises(InputError, match=r"SHA-256 is not the one that model.json names"):
        load_model(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors: no such file"):
        load_model(saved)


def test_load_model_of_two_models_mixed_is_refused(tmp_path, saved, models):
    save_model(models["mse"], tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved / "model.safetensors")
    with pytest.raises(InputError, match="damaged, or of another model"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "layers.0.bias"}, "expected the tensors"),
        (lambda t: {**t, "more": np.zeros(2, "f4")}, "expected the tensors"),
        (lambda t: {**t, "layers.0.bias": np.zeros(3, "f4")}, r"shape \(16,\), got float32 of"),
        (lambda t: {k: v.astype("f8") for k, v in t.items()}, "got float64"),
        (lambda t: {k: v * np.nan for k, v in t.items()}, "values that are NaN or infinite"),
        (lambda t: {}, "got none"),
    ],
)
def test_load_model_with_wrong_tensors_is_refused(saved, change, message):
    change_tensors(saved, change)
    with pytest.raises(InputError, match=message):
        load_model(saved)


def test_load_model_on_a_device_that_is_not_there_is_refused(saved):
    with pytest.raises(SettingsError, match="expected auto, cpu or cuda, got 'tpu'"):
        load_model(saved, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="torch sees no CUDA device"):
            load_model(saved, device="cuda")
    assert load_model(saved, device="auto").transform(np.ones((1, 10), "f4")).shape == (1, 4)
