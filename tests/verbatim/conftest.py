"""A tiny model, made once a session, and candidates of a small run."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.verbatim.candidates import find_candidates

_TOKENS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
run_here = partial(dask_dedup.run, execute=compute_tasks)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a diffusers pipeline."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that are loaded here first
        return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def found_candidates(tmp_path_factory: pytest.TempPathFactory, write_dataset) -> Path:
    """Candidates of 5, 4 and 3 copies, each with two captions."""
    folder = tmp_path_factory.mktemp("candidates")
    rng = np.random.default_rng(9)
    which = np.concatenate([np.repeat([0, 1, 2], [5, 4, 3]), np.arange(3, 51)])
    rows = rng.normal(size=(51, 16))[which] + 0.01 * rng.normal(size=(60, 16))
    names = ["a red star", "a blue flag", "a cat"]
    captions = [
        names[i] + ("." if j % 3 == 2 else "") if i < 3 else "" for j, i in enumerate(which)
    ]
    metadata = pd.DataFrame(
        {
            "url": [f"https://example.org/{i}.png" for i in range(60)],
            "caption": captions,
            "key": [f"{i:09d}" for i in range(60)],
        }
    )
    write_dataset(folder / "data", [rows.astype("f4")], [metadata])
    run_here(folder / "data", folder / "out", threshold=0.95)
    find_candidates(folder / "out", folder / "dest")
    return folder / "dest"


@pytest.fixture
def candidates(found_candidates: Path, tmp_path: Path) -> Path:
    """A copy of the candidates that a test may add to."""
    shutil.copytree(found_candidates, tmp_path / "dest")
    return tmp_path / "dest"


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a Stable Diffusion pipeline of some 100,000 weights; pictures of 32 x 32 pixels."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    words = folder.parent / f"{folder.name}-words"
    words.mkdir(parents=True)
    tokens = [*_TOKENS, *(f"{one}</w>" for one in _TOKENS), "<|startoftext|>", "<|endoftext|>"]
    (words / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=77
    )
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=4,
            attention_head_dim=4,
        ),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
