"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

import dask_dedup

settings.register_profile("dask_dedup", deadline=None)  # a busy machine is no error
settings.load_profile("dask_dedup")


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    """Undo what the command line does to our logger, when it runs inside this process."""
    logger = logging.getLogger("dask_dedup")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def clipart() -> Path:
    """Folder of the example data set: 10,248 rows in 5 parts."""
    return Path(__file__).parent.parent / "examples" / "data" / "clipart"


@pytest.fixture(scope="session")
def clipart_clusters(clipart: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Clusters of the example data set by an undisturbed run of 40 cells and 4 visits."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    settings = {"cells": {"visits": 4.0, "cells": 40}}
    dask_dedup.run(clipart, out, dask_dedup.Settings.model_validate(settings))
    return pd.read_parquet(out / "clusters")


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
def no_compute() -> Callable[[], AbstractContextManager[None]]:
    """Return a guard: inside its block nothing may be computed."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a lazy function computed something")

    @contextmanager
    def guard() -> Iterator[None]:
        with dask.config.set(scheduler=refuse):
            yield

    return guard
