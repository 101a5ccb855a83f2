"""What a GPU changes: the run, fitting and applying a compressor, generating pictures.

    python examples/benchmarks/gpu.py --rows 2e6

runs each command with ``--device cpu`` and with ``--device cuda`` on the same synthetic data,
compares the results, and prints the seconds of the whole commands and of the stages that a device
changes. With diffusers it also generates pictures with a pipeline of Stable Diffusion 1's size and
random weights: its pictures are noise, its time is not.

On one H100 (torch 2.11.0+cu130), pictures of 512 x 512 and 50 steps:

========  =====  ==========  =============  ==========
weights   batch  pictures/s  first steps/s  GPU memory
========  =====  ==========  =============  ==========
float32       1        0.32            5.2      5.5 GB
float32       4        0.60           26.6      8.5 GB
float32      16        0.69           33.7     21.4 GB
float16       1        0.57           21.1      2.8 GB
float16       4        1.53           69.9      4.3 GB
float16      16        2.85          107.6     10.7 GB
========  =====  ==========  =============  ==========

The other two parts have run with the CPU in the place of the GPU only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scoring import run_measured
from skew import ROOT
from synthetic import generate

PROGRAM = [sys.executable, "-m", "dask_dedup"]
STAGES = ("fit", "layout", "join")
SIDE, STEPS = 512, 50


def main() -> None:
    """Run what was asked for, print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=2e6)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threshold", default="0.95")
    parser.add_argument("--workers", nargs="+", default=["4", "16"])
    parser.add_argument("--what", nargs="+", default=["run", "compress", "generate"])
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / "gpu")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    console.print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    if {"run", "compress"} & {*arguments.what}:
        data = arguments.work / f"{int(arguments.rows)}x{arguments.dim}"
        if not data.exists():
            aside = data.with_suffix(".partial")
            shutil.rmtree(aside, ignore_errors=True)
            generate(aside, int(arguments.rows), arguments.dim, parts=32)
            aside.rename(data)
    if "run" in arguments.what:
        console.print(compare_runs(data, arguments))
    if "compress" in arguments.what:
        console.print(compare_compressors(data, arguments.work))
    if "generate" in arguments.what:
        console.print(time_pictures(arguments.work / "model"))


def compare_runs(data: Path, arguments: argparse.Namespace) -> Table:
    """Run on both devices with each number of workers; results must be equal."""
    table = Table("device", "workers", "seconds", *STAGES, "peak memory", title="run", box=None)
    whole: pd.DataFrame | None = None
    for workers in arguments.workers:
        for device in ("cpu", "cuda"):
            out = arguments.work / "out"
            seconds, peak = measure(
                "run", data, out, "--overwrite", "-q", "--device", device, "--workers", workers,
                "--threshold", arguments.threshold,
            )  # fmt: skip
            stages = json.loads((out / "summary.json").read_text())["stages"]
            named = {stage["name"]: f"{stage['seconds']:.1f}" for stage in stages}
            table.add_row(
                device, workers, f"{seconds:.1f}", *(named[name] for name in STAGES), memory(peak)
            )
            forest = pd.read_parquet(out / "forest")
            if whole is not None:
                pd.testing.assert_frame_equal(forest, whole)
            whole = forest
    return table


def compare_compressors(data: Path, work: Path) -> Table:
    """Fit SNIP and apply it on both devices."""
    table = Table("device", "fit", "compress", "held-out loss", title="SNIP to 64", box=None)
    outputs = []
    for device in ("cpu", "cuda"):
        model, out = work / f"snip-{device}", work / f"snip-{device}-out"
        for path in (model, out):
            shutil.rmtree(path, ignore_errors=True)
        fit, _ = measure(
            "fit-compressor", data, model, "--kind", "snip", "--dim", "64", "--device", device,
            "--threads", str(os.cpu_count()), "-q",
        )  # fmt: skip
        apply, _ = measure(
            "compress", data, work / "snip-cpu", out, "--device", device, "--dtype", "float32", "-q"
        )
        statistics = json.loads((model / "model.json").read_text())["statistics"]
        table.add_row(device, f"{fit:.1f}", f"{apply:.1f}", f"{statistics['validation_loss']:.5f}")
        outputs.append(np.load(next(iter(sorted(out.glob("img_emb/*"))))))
    worst = float(np.abs(outputs[0] - outputs[1]).max())
    table.caption = f"largest difference of a value: {worst:.1e}"
    return table


def time_pictures(folder: Path) -> Table:
    """Time pictures, and the first steps that prompts are ranked by."""
    from dask_dedup.verbatim.model import Model, draw, first_step, load_pipeline

    if not folder.exists():
        save_large_model(folder)
    table = Table(
        "weights", "batch", "load", "pictures/s", "first steps/s", "GPU memory",
        title=f"{SIDE} x {SIDE} pictures of {STEPS} steps", box=None,
    )  # fmt: skip
    for half in (False, True):
        model = Model(str(folder), STEPS, 7.5, SIDE, "cuda", half)
        load = seconds_of(lambda model=model: load_pipeline(model.name, "cuda", model.half))
        for batch in (1, 4, 16):
            torch.cuda.reset_peak_memory_stats()
            prompts, seeds = ["a red star"] * batch, [*range(batch)]
            draw(model, prompts, seeds, 2)  # the first call tunes
            whole = seconds_of(lambda a=(model, prompts, seeds, STEPS): draw(*a))
            first = seconds_of(lambda a=(model, prompts, seeds): first_step(*a))
            table.add_row(
                "float16" if half else "float32", str(batch), f"{load:.1f} s",
                f"{batch / whole:.2f}", f"{batch / first:.1f}",
                memory(torch.cuda.max_memory_allocated()),
            )  # fmt: skip
    return table


def save_large_model(folder: Path) -> None:
    """Write a pipeline of Stable Diffusion 1's shapes: random weights, a tokenizer of letters."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    words = folder.with_name(f"{folder.name}-words")
    words.mkdir(parents=True, exist_ok=True)
    (words / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    end = len(tokens) - 1
    text = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=768, intermediate_size=3072, num_attention_heads=12,
        num_hidden_layers=12, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    widths = (128, 256, 512, 512)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, sample_size=SIDE,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(
            str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=77
        ),
        unet=UNet2DConditionModel(sample_size=SIDE // 8, cross_attention_dim=768),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)


def measure(*words: str | Path) -> tuple[float, int]:
    """Return the seconds and peak bytes of a command."""
    return run_measured([*PROGRAM, *(str(word) for word in words)], threads=os.cpu_count() or 1)


def seconds_of(call) -> float:
    """Return the seconds of a call, the GPU's work included."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def memory(count: int) -> str:
    """Return bytes as GB."""
    return f"{count / 1e9:.1f} GB"


if __name__ == "__main__":
    main()
