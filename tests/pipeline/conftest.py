"""Finished runs with metadata to choose copies by, for the tests of ``[keep]``."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks, audit_queries=0)
ROWS, THRESHOLD = 900, 0.95


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_rows():
    """Two walks, a hub with spokes, a clique, equal rows, single rows and invalid ones."""
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(2, 1, 32)) + np.cumsum(0.3 * rng.normal(size=(2, 200, 32)), axis=1)
    spokes = unit(rng.normal(size=(60, 32)) * np.r_[0, np.ones(31)])
    hub = np.concatenate([np.eye(32)[:1], 0.96 * np.eye(32)[:1] + 0.28 * spokes])
    clique = rng.normal(size=(1, 32)) + 0.02 * rng.normal(size=(60, 32))
    rows = np.concatenate([*walks, hub, clique, rng.normal(size=(179, 32))])
    rows = np.concatenate([rows, rows[rng.choice(len(rows), ROWS - len(rows))]]).astype("f4")
    rows = rows[rng.permutation(ROWS)]
    rows[17], rows[400] = 0, np.nan
    return rows


def make_metadata():
    rng = np.random.default_rng(1)
    words = ["", "a", "é", "long caption", "ß", "Z", "zz"]
    return pd.DataFrame(
        {
            "url": [f"http://x/{i % 700}" for i in range(ROWS)],
            "caption": [None if i % 11 == 3 else words[i % 7] for i in range(ROWS)],
            "width": pd.array(rng.choice([1, 2, 70_000, None], ROWS), "Int32"),
            "height": pd.array(rng.integers(1, 4, ROWS) * 50_000, "Int32"),
            "score": rng.choice([0.5, np.nan, -0.0, 0.0, 7.25, np.inf], ROWS),
            "source": rng.choice(["gold", "web", "web", "web"], ROWS),
            "tags": [list("abcdef"[i % 5 : i % 7]) for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="session")
def rows():
    return make_rows()


@pytest.fixture(scope="session")
def metadata():
    return make_metadata()


@pytest.fixture(scope="session")
def cosines(rows):
    usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    wide = np.zeros(rows.shape)
    wide[usable] = unit(rows[usable].astype("f8"))
    return (wide @ wide.T).clip(-1, 1).astype("f4")


@pytest.fixture(scope="session")
def clusters(cosines):
    label = connected_components(cosines >= np.float32(THRESHOLD), directed=False)[1]
    return np.unique(label, return_index=True)[1][label]


@pytest.fixture(scope="session")
def write_parts(rows, metadata, write_dataset):
    """Return a function that writes the data set in so many parts."""

    def write(parts, folder):
        cuts = np.linspace(0, ROWS, parts + 1).astype(int)[1:-1]
        if parts == 7:
            cuts[2] = cuts[1]  # an empty part
        edges = [0, *cuts, ROWS]
        frames = [metadata.iloc[a:b] for a, b in pairwise(edges)]
        return write_dataset(folder, np.split(rows, cuts), frames)

    return write


@pytest.fixture(scope="session")
def finished(write_parts, tmp_path_factory):
    """Finished runs without rules, in 1, 2 and 7 parts."""
    folder = tmp_path_factory.mktemp("keep")
    outs = {}
    for parts in (1, 2, 7):
        data = write_parts(parts, folder / f"data-{parts}")
        outs[parts] = folder / f"out-{parts}"
        run_here(data, outs[parts], {"cells.cells": 1, "join.search_threshold": 0.9})
    return outs


@pytest.fixture(scope="session")
def keep(finished, tmp_path_factory):
    """Apply rules to a finished run; return clusters and summary."""

    def keep(parts=2, **rules):
        out = tmp_path_factory.mktemp("kept") / "out"
        result = dask_dedup.keep(finished[parts], out, execute=compute_tasks, **rules)
        return pd.read_parquet(out / "clusters"), result

    return keep


@pytest.fixture(scope="session")
def write_decisions():
    """Return a function that writes decisions by row."""

    def write(path, lines):
        path.write_text("\n".join(["row_id,decision", *lines]) + "\n")
        return path

    return write
