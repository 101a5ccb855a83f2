"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from s3fs import S3FileSystem

import dask_dedup
from dask_dedup.runtime.executor import NoProgress, compute_tasks
from dask_dedup.vectors.equal_rows import hash_words

_TOKENS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
run_here = partial(dask_dedup.run, execute=compute_tasks)

settings.register_profile("dask_dedup", deadline=None)  # a busy machine is no error
settings.load_profile("dask_dedup")


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    """Undo what the command line does to our logger, when it runs inside this process."""
    logger = logging.getLogger("dask_dedup")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where torch sees none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")


class StageNotes(NoProgress):
    """Notes the stages of a run, and can do something as one begins.

    Parameters
    ----------
    stop : str, optional
        Raise InterruptedError as this stage begins.
    do : mapping, optional
        What to call as a stage begins for the first time.
    """

    def __init__(
        self, stop: str | None = None, do: Mapping[str, Callable[[], object]] | None = None
    ) -> None:
        self.names: list[str] = []
        self.is_closed = False
        self._stop, self._do = stop, dict(do or {})

    def start(self, stage: str, rows: int) -> None:
        """Note the stage."""
        self.names.append(stage)
        if stage in self._do:
            self._do.pop(stage)()
        if stage == self._stop:
            raise InterruptedError

    def close(self) -> None:
        """Note the end."""
        self.is_closed = True


@pytest.fixture(scope="session")
def stage_notes() -> type[StageNotes]:
    """Return the class of progress displays that note the stages."""
    return StageNotes


@pytest.fixture(scope="session")
def clipart() -> Path:
    """Folder of the example data set: 10,248 rows in 5 parts."""
    return Path(__file__).parent.parent / "examples" / "data" / "clipart"


@pytest.fixture(scope="session")
def clipart_run(clipart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run over the example data set, of 40 cells, each row in 4."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    settings = {"cells": {"cells_per_row": 4.0, "cells": 40}}
    run_here(clipart, out, dask_dedup.Settings.model_validate(settings))
    return out


@pytest.fixture(scope="session")
def clipart_clusters(clipart_run: Path) -> pd.DataFrame:
    """Clusters of the example data set, of that run."""
    return pd.read_parquet(clipart_run / "clusters")


@pytest.fixture(scope="session")
def photos(
    clipart: Path, tmp_path_factory: pytest.TempPathFactory, write_dataset: Callable[..., Path]
) -> Path:
    """The first 1,600 rows of the example data set, in 4 parts."""
    rows = np.load(sorted(clipart.glob("img_emb/*.npy"))[0])[:1600]
    frame = pd.read_parquet(sorted(clipart.glob("metadata/*.parquet"))[0])[:1600]
    frames = [frame[i : i + 400] for i in range(0, 1600, 400)]
    return write_dataset(tmp_path_factory.mktemp("photos") / "data", np.split(rows, 4), frames)


@pytest.fixture(scope="session")
def photo_clusters(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Clusters of `photos` by an undisturbed run of 12 cells, each row in 3."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run_here(photos, out, {"cells.cells_per_row": 3.0, "cells.cells": 12})
    return pd.read_parquet(out / "clusters")


@pytest.fixture(scope="session")
def run_page() -> Callable[[Path, Path], list[str]]:
    """Return a function that runs what a page says in a folder; Python's prints come back.

    Each block that begins with ```sh, then each that begins with ```python, by itself.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    shells = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}

    def run(page: Path, folder: Path) -> list[str]:
        printed: dict[str, list[str]] = {}
        for kind, command in shells.items():
            blocks = re.findall(
                rf"^```{kind}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
            )
            for block in blocks:
                done = subprocess.run(
                    [*command, block],
                    cwd=folder, env=environment, capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{page.name}: {block}\n{done.stdout}\n{done.stderr}"
                printed.setdefault(kind, []).append(done.stdout)
        return printed.get("python", [])

    return run


@pytest.fixture(scope="session")
def guide_folder(
    run_page: Callable[[Path, Path], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which what README runs has been run."""
    root, folder = Path(__file__).parent.parent, tmp_path_factory.mktemp("guide")
    (folder / "examples").symlink_to(root / "examples")
    run_page(root / "README.md", folder)
    return folder


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """Return a function that writes embeddings and metadata as clip-retrieval lays them out."""

    def write(
        folder: Path,
        embeddings: Sequence[np.ndarray],
        metadata: Sequence[pd.DataFrame | None] | None = None,
        texts: Sequence[np.ndarray] | None = None,
    ) -> Path:
        """Write one part per array; without a data frame a part gets made-up URLs and captions."""
        if texts is not None:
            (folder / "text_emb").mkdir(parents=True)
            for i, array in enumerate(texts):
                np.save(folder / "text_emb" / f"text_emb_{i}.npy", array)
        (folder / "img_emb").mkdir(parents=True)
        (folder / "metadata").mkdir()
        for i, array in enumerate(embeddings):
            frame = metadata[i] if metadata is not None else None
            if frame is None:
                names = [f"{i}-{j}" for j in range(len(array))]
                frame = pd.DataFrame(
                    {"url": [f"http://x/{n}.jpg" for n in names], "caption": names}, dtype="str"
                )
            np.save(folder / "img_emb" / f"img_emb_{i}.npy", array)
            frame.to_parquet(folder / "metadata" / f"metadata_{i}.parquet", index=False)
        return folder

    return write


@pytest.fixture(scope="session")
def same_hash() -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that makes a row whose `hash_words` is that of another: 8 float32."""

    def solve(row: np.ndarray) -> np.ndarray:
        """Choose three words of four, and undo the hash's last two steps for the fourth."""
        rng = np.random.default_rng(0)
        starts = [
            0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5,
        ]  # fmt: skip

        def ends(words: Sequence[int]) -> tuple[int, int]:
            a, b, c, d = map(_mix, starts, words)
            return _mix(_mix(a, b), c), d

        first, last = ends(row.view("u8").tolist())
        while True:
            other = np.append(rng.normal(size=6).astype("f4"), np.zeros(2, "f4"))
            begun, _ = ends(other.view("u8").tolist())
            other.view("u8")[3] = _unmixed(first ^ last ^ begun) ^ starts[3]
            if (np.abs(other) < 100).all():  # nor NaN
                assert len(set(hash_words(np.stack([row, other]).view("u8")))) == 1
                return other

    return solve


def _mix(value: int, word: int) -> int:
    value = (value ^ word) * 0xFF51AFD7ED558CCD % 2**64
    return value ^ value >> 29


def _unmixed(mixed: int) -> int:
    value = mixed ^ mixed >> 29 ^ mixed >> 58
    return value * pow(0xFF51AFD7ED558CCD, -1, 2**64) % 2**64


@pytest.fixture(scope="session")
def no_compute() -> Callable[[], AbstractContextManager[None]]:
    """Return a guard: inside its block nothing may be computed."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a lazy function computed something")

    @contextmanager
    def guard() -> Iterator[None]:
        with dask.config.set(scheduler=refuse):
            yield

    return guard


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a Dask scheduler with one worker, for ``--cluster``: threads of this process."""
    from distributed import LocalCluster  # at the top, it would take INFO lines from `caplog`

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, memory_limit="3GB", host="127.0.0.1",
        protocol="tcp://", dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run an S3 server, moto's, for one module; gives its log, which names every request."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    address = f"http://127.0.0.1:{port}"
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
        "AWS_ENDPOINT_URL": address,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with pytest.MonkeyPatch.context() as patch, open(log, "wb") as out:
        for name, value in variables.items():
            patch.setenv(name, value)
        server = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            for _ in range(300):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield log
        finally:
            server.terminate()
            server.wait()
            S3FileSystem.clear_instance_cache()  # the next module's server has another address


@pytest.fixture(scope="session")
def save_tiny_model() -> Callable[[Path], Path]:
    """Return a function that writes a text-to-image pipeline of diffusers: tiny, random weights."""
    return _save_tiny_model


def _save_tiny_model(folder: Path, seed: int = 0) -> Path:
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
