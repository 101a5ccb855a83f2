"""A real diffusers pipeline, loaded as any is."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dask_dedup.errors import InputError
from dask_dedup.verbatim.model import Model, draw, first_step, load_pipeline

pytestmark = pytest.mark.filterwarnings("ignore")  # of diffusers and transformers


def test_draw_gives_the_same_picture_for_a_prompt_and_seed_whatever_else_is_drawn(
    tiny_model: Path,
) -> None:
    model = Model(str(tiny_model), steps=3)
    both = draw(model, ["a red star", "a blue flag"], [0, 1], 3)
    assert both.shape == (2, 32, 32, 3) and both.dtype == np.float32
    assert both.min() >= 0 and both.max() <= 1
    alone = draw(model, ["a blue flag"], [1], 3)
    np.testing.assert_allclose(alone[0], both[1], atol=1e-5)
    assert np.abs(draw(model, ["a blue flag"], [2], 3)[0] - both[1]).max() > 0.05
    assert np.abs(draw(model, ["a red star"], [1], 3)[0] - both[1]).max() > 1e-4


def test_first_step_equals_the_steps_of_diffusers_by_hand(tiny_model: Path) -> None:
    import torch

    model = Model(str(tiny_model), steps=4, guidance=7.5)
    (found,) = first_step(model, ["a red star"], [5])
    pipeline = load_pipeline(str(tiny_model))
    with torch.no_grad():
        with_text, plain = pipeline.encode_prompt("a red star", "cpu", 1, True)
        before = torch.randn((1, 4, 16, 16), generator=torch.Generator("cpu").manual_seed(5))
        pipeline.scheduler.set_timesteps(4)
        time = pipeline.scheduler.timesteps[0]
        noises = [pipeline.unet(before, time, text).sample for text in (plain, with_text)]
        noise = noises[0] + 7.5 * (noises[1] - noises[0])
        after = pipeline.scheduler.step(noise, time, before, eta=0.0).prev_sample
    assert found.change == pytest.approx(float(((after - before) ** 2).mean()), rel=1e-4)
    assert found.text_norm == pytest.approx(float((noises[1] - noises[0]).norm()), rel=1e-4)


def test_first_step_leaves_the_pipeline_as_it_was(tiny_model: Path) -> None:
    model = Model(str(tiny_model), steps=3)
    before = draw(model, ["a"], [0], 3)
    first_step(model, ["a"], [0])
    np.testing.assert_array_equal(draw(model, ["a"], [0], 3), before)


def test_first_step_without_guidance_has_no_text_norm(tiny_model: Path) -> None:
    ((change, text_norm),) = first_step(Model(str(tiny_model), steps=3, guidance=1.0), ["a"], [0])
    assert change > 0
    assert np.isnan(text_norm)


def test_draw_in_many_threads_is_that_of_one(tiny_model: Path) -> None:
    model = Model(str(tiny_model), steps=6, guidance=5.0)
    jobs = [(caption, seed) for caption in ("a red star", "a cat") for seed in range(4)]
    expected = [draw(model, [caption], [seed], 6) for caption, seed in jobs]
    steps = [first_step(model, [caption], [seed]) for caption, seed in jobs]
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda job: draw(model, [job[0]], [job[1]], 6), jobs)]
        found_steps = [*pool.map(lambda job: first_step(model, [job[0]], [job[1]]), jobs)]
    for picture, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(picture, wanted, atol=1e-4)
    np.testing.assert_allclose(found_steps, steps, rtol=1e-4)


def test_draw_of_a_size_that_the_model_refuses_says_so(tiny_model: Path) -> None:
    with pytest.raises(InputError, match=r"StableDiffusionPipeline fails: .*divisible by 8"):
        draw(Model(str(tiny_model), size=31), ["a"], [0], 2)


def test_draw_of_what_are_no_numbers_is_no_black_picture(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "overflows"
    shutil.copytree(tiny_model, folder)
    (weights,) = (folder / "vae").glob("*.safetensors")
    values = {name: value * np.float32(np.nan) for name, value in load_file(weights).items()}
    save_file(values, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"gives pictures that are no numbers.*leave out --half"):
        draw(Model(str(folder)), ["a"], [0], 2)


def test_load_pipeline_of_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text-to-image pipeline can be loaded"):
        load_pipeline(str(tmp_path / "nowhere"))


def test_load_pipeline_of_pickled_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_pipeline(str(tiny_model)).unet.state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InputError, match="no text-to-image pipeline can be loaded"):
        load_pipeline(str(folder))


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder/pytorch_model.bin",
        "vae/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.bin",
    ],
)
@pytest.mark.parametrize("is_beside", [False, True])
def test_load_pipeline_opens_no_pickle(
    tiny_model: Path, tmp_path: Path, name: str, is_beside: bool
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    (folder / name).write_bytes(pickle.dumps(_Hostile(tmp_path / "ran")))
    if is_beside:
        load_pipeline(str(folder))
    else:
        (weights,) = (folder / name).parent.glob("*.safetensors")
        weights.unlink()
        with pytest.raises(InputError, match="no text-to-image pipeline can be loaded"):
            load_pipeline(str(folder))
    assert not (tmp_path / "ran").exists()


def test_load_pipeline_runs_no_code_of_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_model, folder)
    marker = tmp_path / "ran"
    (folder / "unet/hostile.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom diffusers import UNet2DConditionModel as Hostile\n"
    )
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["hostile", "Hostile"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="can be loaded"):
        load_pipeline(str(folder))
    assert not marker.exists()
