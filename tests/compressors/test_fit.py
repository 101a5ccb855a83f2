"""Fitting on a data set: the sample, the split, the modalities, and what is refused."""

import dask
import numpy as np
import pytest

from dask_dedup import (
    InputError,
    NetworkSettings,
    SettingsError,
    fit_compressor,
    read_dataset,
)
from dask_dedup.compressors.base import digest_tensors
from dask_dedup.compressors.fit import _gather_sample, _split, views_of
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.vectors.sample import sample_row_ids

QUICK = NetworkSettings(epochs=2, batch=32, width=16, sample_rows=150)
KINDS = ["pca", "mse", "snip"]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(300, 10)) + 0.5
    return images.astype("f4"), (images + 0.3 * rng.normal(size=(300, 10))).astype("f4")


@pytest.fixture(scope="module")
def both(tmp_path_factory, write_dataset, rows):
    images, texts = (np.split(array, [1, 100, 100, 250]) for array in rows)
    path = tmp_path_factory.mktemp("fit") / "data"
    return read_dataset(write_dataset(path, images, texts=texts))


class Seen:
    """A progress that remembers."""

    def __init__(self):
        self.stages, self.done = [], {}

    def start(self, stage, rows):
        self.stages.append((stage, rows))

    def advance(self, rows):
        stage = self.stages[-1][0]
        self.done[stage] = self.done.get(stage, 0) + rows

    def finish(self):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_fit_compressor_is_the_same_for_any_parts_and_threads(
    tmp_path, write_dataset, rows, both, kind
):
    images, texts = rows
    one = read_dataset(write_dataset(tmp_path / "one", [images], texts=[texts]))
    arguments = {"modality": "both", "settings": QUICK, "seed": 3}
    digests = {digest_tensors(fit_compressor(one, kind, 4, **arguments))}
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            digests.add(digest_tensors(fit_compressor(both, kind, 4, **arguments)))
    assert len(digests) == 1
    arguments["seed"] = 4
    assert digest_tensors(fit_compressor(one, kind, 4, **arguments)) not in digests


def test_fit_compressor_learns_from_the_sample_alone(both, rows):
    """The rows of smallest hash, of both modalities, at unit length; never simply the first."""
    waves = []

    def execute(tasks, on_result):
        waves.append(len(tasks))
        return compute_tasks(tasks, on_result)

    views = views_of(both, "both")
    row_ids, samples = _gather_sample(views, QUICK.sample_rows, 5, execute, Seen(), 2000)
    chosen = sample_row_ids(300, 150, 5, 5)
    assert chosen.max() > 250
    np.testing.assert_array_equal(row_ids, chosen)
    for sample, array in zip(samples, rows, strict=True):
        expected = array[chosen] / np.linalg.norm(array[chosen], axis=1, keepdims=True)
        np.testing.assert_allclose(sample, expected, rtol=1e-6)
    assert waves == [1]  # one span, whose task reads both modalities


@pytest.mark.parametrize("modality", ["image", "text"])
def test_fit_compressor_of_one_modality_reads_that_one(both, rows, modality):
    settings = QUICK.model_copy(update={"sample_rows": 1000})
    model = fit_compressor(both, "pca", 10, modality=modality, settings=settings)
    array = rows[modality == "text"]
    unit = array / np.linalg.norm(array, axis=1, keepdims=True)
    _, _, vectors = np.linalg.svd(unit.astype("f8"), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(model.axes.T * vectors, axis=1)), 1, atol=1e-4)
    assert model.header.modality == modality
    assert model.header.data["fingerprint"] == both.fingerprint


def test_fit_compressor_pca_of_both_has_the_images_axes(both):
    models = [
        fit_compressor(both, "pca", 4, modality=name, settings=QUICK) for name in ("both", "image")
    ]
    assert digest_tensors(models[0]) == digest_tensors(models[1])


def test_fit_compressor_leaves_out_rows_unusable_in_either_modality(tmp_path, write_dataset, rows):
    images, texts = (array.copy() for array in rows)
    images[:7], texts[5:20], texts[30] = 0, np.nan, np.inf
    data = read_dataset(write_dataset(tmp_path / "data", [images], texts=[texts]))
    settings = QUICK.model_copy(update={"sample_rows": 300})
    header = fit_compressor(data, "snip", 4, modality="both", settings=settings).header
    assert header.statistics["sampled_rows"] == 300 - 21
    assert header.statistics["validation_rows"] == 28
    assert header.statistics["training_rows"] == 279 - 28
    single = fit_compressor(data, "pca", 4, modality="image", settings=settings).header
    assert single.statistics["sampled_rows"] == 293


def test_fit_compressor_reports_its_progress(both):
    seen = Seen()
    fit_compressor(both, "snip", 4, settings=QUICK, progress=seen)
    assert seen.stages == [("sample", 150), ("train", 135 * 2)]
    assert seen.done == {"sample": 150, "train": 128 * 2}  # the last, smaller batch is left out


def test_split_holds_out_a_share_of_the_rows_by_their_ids():
    ids = np.arange(1000, 2000)
    held_out = _split(ids, 0.1, 0)
    assert held_out.sum() == 100
    few = ids[held_out | (ids % 2 == 0)]
    again = _split(few, held_out.sum() / len(few), 0)
    np.testing.assert_array_equal(few[again], ids[held_out])
    assert _split(ids[:4], 0.1, 0).sum() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_fit_compressor_of_few_or_equal_rows(tmp_path, write_dataset, kind):
    same = read_dataset(write_dataset(tmp_path / "same", [np.full((40, 6), 0.3, "f4")]))
    few = read_dataset(write_dataset(tmp_path / "few", [np.eye(4, 6, dtype="f4")]))
    for data in (same, few):
        out = fit_compressor(data, kind, 5, settings=QUICK).transform(np.eye(4, 6, dtype="f4"))
        assert np.isfinite(out).all()
    one = read_dataset(write_dataset(tmp_path / "one", [np.eye(1, 6, dtype="f4")]))
    if kind == "pca":
        out = fit_compressor(one, kind, 5, settings=QUICK).transform(np.eye(1, 6, dtype="f4"))
        assert np.abs(out).max() == pytest.approx(1)
    else:
        with pytest.raises(InputError, match=f"1 of 1 sampled rows are usable.*{kind} needs at"):
            fit_compressor(one, kind, 5, settings=QUICK)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_compressor_without_usable_rows_is_refused(tmp_path, write_dataset, kind):
    data = read_dataset(write_dataset(tmp_path / "data", [np.zeros((9, 6), "f4")]))
    with pytest.raises(InputError, match="0 of 9 sampled rows are usable"):
        fit_compressor(data, kind, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "opq"}, "kind: expected pca, mse or snip, got 'opq'"),
        ({"dim": 11}, "dim: expected 1 to 10, the dimension of the embeddings, got 11"),
        ({"dim": 0}, "dim: expected 1 to 10"),
        ({"modality": "video"}, "modality: expected image, text or both, got 'video'"),
        ({"device": "tpu"}, "device: expected auto, cpu or cuda"),
        ({"settings": NetworkSettings(clip_weight=1)}, "clip_weight: .* needs modality both"),
    ],
)
def test_fit_compressor_with_wrong_settings_is_refused(both, arguments, message):
    with pytest.raises(SettingsError, match=message):
        fit_compressor(both, **{"kind": "snip", "dim": 4, **arguments})


def test_fit_compressor_of_both_needs_texts_of_the_images_dimension(tmp_path, write_dataset, rows):
    plain = read_dataset(write_dataset(tmp_path / "plain", [rows[0]]))
    with pytest.raises(InputError, match="has no text embeddings"):
        fit_compressor(plain, "pca", 4, modality="both")
    apart = write_dataset(tmp_path / "apart", [rows[0]], texts=[rows[1][:, :8]])
    with pytest.raises(InputError, match=r"images have dimension 10, texts 8\. Modality both"):
        fit_compressor(read_dataset(apart), "pca", 4, modality="both")
