"""Pictures of a real pipeline from the captions of planted candidates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dask_dedup.errors import InputError, OutputError, SettingsError
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.verbatim.edges import common_edges
from dask_dedup.verbatim.generate import GenerateSettings, generate
from dask_dedup.verbatim.model import Model, draw, first_step
from dask_dedup.verbatim.prompts import picture_name, read_candidates, read_prompts

pytestmark = pytest.mark.filterwarnings("ignore")  # of diffusers and transformers


def _model(folder: Path, steps: int = 2) -> Model:
    return Model(str(folder), steps=steps, guidance=5.0)


def _pictures(dest: Path) -> dict[str, np.ndarray]:
    return {
        path.name: np.asarray(Image.open(path), np.float32) / 255
        for path in sorted((dest / "generated/pictures").iterdir())
    }


def test_generate_makes_a_picture_for_each_prompt_and_seed(
    candidates: Path, tiny_model: Path
) -> None:
    model = _model(tiny_model)
    summary = generate(candidates, GenerateSettings(model, seeds=2, prompts=2, batch=3))
    captions = pd.read_parquet(candidates / "candidates/captions.parquet")
    captions["prompt"] = captions.groupby("candidate").cumcount()
    first = captions[captions["prompt"] < 2]
    expected = {
        picture_name(row.candidate, row.prompt, seed): draw(model, [row.caption], [seed], 2)[0]
        for row in first.itertuples()
        for seed in (0, 1)
    }
    found = _pictures(candidates)
    assert found.keys() == expected.keys()
    for name, picture in expected.items():
        np.testing.assert_allclose(found[name], picture, atol=1.01 / 255)
    assert summary == {
        "pictures": len(expected),
        "resumed": 0,
        "prompts": len(first),
        "unranked": 0,
        "rank": None,
        "seeds": 2,
    }


class _StopError(Exception):
    pass


def test_generate_after_an_interruption_makes_the_rest(candidates: Path, tiny_model: Path) -> None:
    settings = GenerateSettings(_model(tiny_model), seeds=3, batch=2)

    def stop_after_two(tasks: Sequence[Any], on_result: Any) -> list[Any]:
        compute_tasks(tasks[:2], on_result)
        raise _StopError

    with pytest.raises(_StopError):
        generate(candidates, settings, execute=stop_after_two)
    before = {p.name: p.stat().st_ino for p in (candidates / "generated/pictures").iterdir()}
    assert len(before) == 4
    summary = generate(candidates, settings)
    after = {p.name: p.stat().st_ino for p in (candidates / "generated/pictures").iterdir()}
    assert before.items() <= after.items()
    assert len(after) == summary["pictures"] == 9
    assert summary["resumed"] == 4


def test_generate_of_the_best_by_the_first_step(candidates: Path, tiny_model: Path) -> None:
    model = _model(tiny_model)
    prompts = read_prompts(read_candidates(candidates), 1)
    for rank, column in (("change", 0), ("text-norm", 1)):
        values = [
            np.mean([first_step(model, [caption] * 4, [0, 1, 2, 3])[i][column] for i in range(4)])
            for caption in prompts["caption"]
        ]
        settings = GenerateSettings(model, seeds=1, rank=rank, best=1)
        generate(candidates, settings, overwrite=True)
        best = prompts.iloc[int(np.argmax(values))]
        assert [*_pictures(candidates)] == [picture_name(best.candidate, best.prompt, 0)]
        ranks = pd.read_parquet(candidates / "generated/ranks.parquet")
        np.testing.assert_allclose(ranks.iloc[:, 3 + column], values, rtol=1e-4)


def test_generate_of_the_best_by_common_edges(candidates: Path, tiny_model: Path) -> None:
    model = _model(tiny_model)
    prompts = read_prompts(read_candidates(candidates), 1)
    values = [
        common_edges(draw(model, [caption] * 4, [0, 1, 2, 3], 1)) for caption in prompts["caption"]
    ]
    generate(candidates, GenerateSettings(model, seeds=1, rank="edges", best=2))
    ranks = pd.read_parquet(candidates / "generated/ranks.parquet")
    np.testing.assert_allclose(ranks["edges"], values)
    assert ranks["change"].isna().all()
    order = np.argsort(-np.array(values), kind="stable")[:2]
    assert [*_pictures(candidates)] == sorted(picture_name(i, 0, 0) for i in order)


def test_generate_with_another_model_is_refused(candidates: Path, tiny_model: Path) -> None:
    generate(candidates, GenerateSettings(_model(tiny_model), seeds=1))
    before = _pictures(candidates)
    other = GenerateSettings(_model(tiny_model, steps=3), seeds=1)
    with pytest.raises(OutputError, match="of another model, other files or settings"):
        generate(candidates, other)
    assert _pictures(candidates).keys() == before.keys()
    generate(candidates, other, overwrite=True)
    state = json.loads((candidates / "generated/generated.json").read_text())
    assert state["model"]["steps"] == 3


def test_generate_with_other_files_of_the_model_is_refused(
    candidates: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    settings = GenerateSettings(_model(tmp_path / "model"), seeds=1)
    generate(candidates, settings)
    assert generate(candidates, settings)["resumed"] == 3
    (weights,) = (tmp_path / "model/unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes())  # trained on, say
    with pytest.raises(OutputError, match="of another model, other files"):
        generate(candidates, settings)


def test_generate_ranks_by_records_of_the_same_prompts_alone(
    candidates: Path, tiny_model: Path
) -> None:
    settings = {"seeds": 1, "rank": "change", "best": 1, "batch": 2}
    model = _model(tiny_model)

    def stop_after_one(tasks: Sequence[Any], on_result: Any) -> list[Any]:
        compute_tasks(tasks[:1], on_result)
        raise _StopError

    with pytest.raises(_StopError):  # after candidates 0 and 1
        generate(candidates, GenerateSettings(model, **settings), execute=stop_after_one)
    generate(candidates, GenerateSettings(model, prompts=2, **settings))
    ranks = pd.read_parquet(candidates / "generated/ranks.parquet")
    expected = [
        np.mean([one.change for one in first_step(model, [caption] * 4, [0, 1, 2, 3])])
        for caption in ranks["caption"]
    ]
    assert len(ranks) == 6
    np.testing.assert_allclose(ranks["change"], expected, rtol=1e-4)


def test_generate_anew_that_fails_leaves_the_old_pictures(
    candidates: Path, tiny_model: Path, tmp_path: Path
) -> None:
    generate(candidates, GenerateSettings(_model(tiny_model), seeds=1))
    before = {p: p.stat().st_ino for p in (candidates / "generated").rglob("*") if p.is_file()}
    for model in (_model(tmp_path / "nowhere"), Model(str(tiny_model), steps=2, size=31)):
        with pytest.raises(InputError):
            generate(candidates, GenerateSettings(model), overwrite=True)
    after = {p: p.stat().st_ino for p in (candidates / "generated").rglob("*") if p.is_file()}
    assert after == before
    assert generate(candidates, GenerateSettings(_model(tiny_model), seeds=1))["resumed"] == 3


def test_generate_into_a_folder_of_somebody_is_refused(candidates: Path, tiny_model: Path) -> None:
    (candidates / "generated").mkdir()
    (candidates / "generated/mine.png").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"holds mine\.png, which is not of this tool"):
            settings = GenerateSettings(_model(tiny_model))
            generate(candidates, settings, overwrite=overwrite)
    assert (candidates / "generated/mine.png").read_bytes() == b"x"


def test_generate_without_candidates_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(OutputError, match="holds no candidates"):
        generate(tmp_path, GenerateSettings(_model(tiny_model)))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (GenerateSettings(Model("m"), seeds=0), "seeds: expected at least 1, got 0"),
        (GenerateSettings(Model("m", steps=0)), "steps: expected at least 1, got 0"),
        (GenerateSettings(Model("m", guidance=float("nan"))), "guidance: expected a number, got"),
        (GenerateSettings(Model("m"), rank="best"), "rank: expected change, text-norm, edges"),
        (GenerateSettings(Model("m", steps=1), rank="change"), "steps: expected at least 2"),
    ],
)
def test_generate_with_impossible_settings_is_refused(
    settings: GenerateSettings, text: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=text):
        generate(tmp_path, settings)


@pytest.mark.gpu
def test_generate_on_a_gpu_makes_the_pictures_of_the_processor(
    candidates: Path, tiny_model: Path
) -> None:
    model = Model(str(tiny_model), steps=3, guidance=5.0, device="cuda")
    summary = generate(candidates, GenerateSettings(model, seeds=2, rank="change"))
    captions = pd.read_parquet(candidates / "candidates/captions.parquet")
    first = captions.groupby("candidate").head(1)
    expected = draw(_model(tiny_model, 3), list(first["caption"]), [1] * len(first), 3)
    found = _pictures(candidates)
    assert summary["pictures"] == len(found) == 2 * len(first)
    for candidate, picture in zip(first["candidate"], expected, strict=True):
        np.testing.assert_allclose(found[picture_name(candidate, 0, 1)], picture, atol=1.5 / 255)
    ranks = pd.read_parquet(candidates / "generated/ranks.parquet")
    steps = [
        np.mean(first_step(_model(tiny_model, 3), [caption] * 4, range(4)), axis=0)
        for caption in ranks["caption"]
    ]
    # A GPU's convolutions round their factors to TensorFloat-32 unless torch is told otherwise.
    np.testing.assert_allclose(ranks[["change", "text_norm"]], steps, rtol=1e-2)
