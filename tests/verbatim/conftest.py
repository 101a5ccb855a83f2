"""A tiny model, made once a session, and candidates of a small run."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.verbatim.candidates import find_candidates

run_here = partial(dask_dedup.run, execute=compute_tasks)


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory, save_tiny_model: Callable[[Path], Path]
) -> Path:
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
