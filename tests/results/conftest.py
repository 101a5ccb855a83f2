"""A small run whose duplicates are known, for what is made from its result."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

ROWS = (50, 1, 0, 249, 120)  # of the parts
GROUPS = 60  # copies are made of so many rows


@pytest.fixture(scope="session")
def planted() -> tuple[np.ndarray, pd.DataFrame]:
    """Embeddings with copies of some rows at cosine 0.99, one unusable row, and metadata."""
    rng = np.random.default_rng(5)
    rows = sum(ROWS)
    group = np.where(rng.random(rows) < 0.5, rng.integers(0, GROUPS, rows), np.arange(rows) + 1000)
    embeddings = np.stack(
        [np.random.default_rng(one).normal(size=48) for one in group]
    ) + 0.03 * rng.normal(size=(rows, 48))
    embeddings[7] = np.nan
    metadata = pd.DataFrame(
        {
            "URL": [None if i == 30 else f"http://x/{i}.jpg" for i in range(rows)],
            "TEXT": [f'a "caption", {i}\nof two lines' for i in range(rows)],
            "key": [f"{i:09d}" for i in range(rows)],
            "width": np.arange(rows, dtype="i2"),
            "kind": pd.Categorical(["a", "b"] * (rows // 2)),
            "tags": [[i, i + 1] if i % 5 else None for i in range(rows)],
        }
    )
    return embeddings.astype("f4"), metadata


def parts_of(rows):
    """Cut rows into the parts."""
    stops = np.cumsum(ROWS)
    return [rows[stop - count : stop] for count, stop in zip(ROWS, stops, strict=True)]


@pytest.fixture(scope="session")
def small_data(write_dataset, planted, tmp_path_factory) -> Path:
    """The planted rows as a data set with texts."""
    embeddings, metadata = planted
    return write_dataset(
        tmp_path_factory.mktemp("small") / "data",
        parts_of(embeddings),
        parts_of(metadata),
        texts=parts_of(-embeddings.astype("f2")),
    )


@pytest.fixture(scope="session")
def small_run(small_data, tmp_path_factory) -> Path:
    """The finished run."""
    out = tmp_path_factory.mktemp("small-run") / "out"
    run_here(small_data, out, {"audit.queries": 0, "cells.cells": 1})
    return out


@pytest.fixture(scope="session")
def small_clusters(small_run) -> pd.DataFrame:
    """Its clusters, with the decision in columns of their own."""
    clusters = pd.read_parquet(small_run / "clusters")
    if "is_kept" not in clusters:
        clusters["is_kept"] = clusters["is_representative"]
        dropped = ~clusters["is_kept"]
        clusters["witness_row_id"] = clusters["cluster_id"].where(dropped)
        clusters["witness_similarity"] = clusters["similarity_to_representative"].where(dropped)
    assert 50 < clusters["is_kept"].sum() < 400
    return clusters
