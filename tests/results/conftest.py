"""Two small finished runs: one with its results by brute force, one whose copies are planted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)
ROWS = (50, 1, 0, 249, 120)  # of the parts
GROUPS = 60  # copies are made of so many rows
HOSTILE = '<script>alert(1)</script>\x1b[31m\nnext & "quoted"'


@dataclass(frozen=True)
class Finished:
    """A run at 0.95, searched from 0.85 up.

    ``cosines`` of all pairs, float32, -1 of the invalid row 40; ``rows``: the metadata and
    ``cluster_id`` by brute force.
    """

    result: dask_dedup.Result
    data: Path
    cosines: np.ndarray
    rows: pd.DataFrame

    @property
    def out(self) -> Path:
        return Path(str(self.result.out))


def components(cosines: np.ndarray, threshold: float) -> np.ndarray:
    """The smallest row of each row's component."""
    _, label = connected_components(cosines >= np.float32(threshold), directed=False)
    first = np.unique(label, return_index=True)[1]
    return first[label]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, write_dataset) -> Finished:
    rng = np.random.default_rng(11)
    centres = rng.normal(size=(60, 24))
    noise = rng.choice([0, 0.05, 0.2, 0.33, 0.45], 600)[:, None]
    rows = np.repeat(centres, 10, axis=0) + noise * rng.normal(size=(600, 24))
    rows = np.vstack([rows, rng.normal(size=(50, 24))])[rng.permutation(650)].astype("f4")
    rows[40] = np.nan
    cuts = [100, 100, 380]  # the second part is empty
    metadata = pd.DataFrame(
        {
            "url": [f"https://example.org/{i % 500}.jpg" for i in range(650)],
            "caption": [HOSTILE if i % 3 else f"caption {i}" for i in range(650)],
            "width.px": np.arange(650, dtype="int32"),
            "tags": [[f"t{i}", "x"] for i in range(650)],
        }
    )
    metadata.loc[7, "url"] = None
    base = tmp_path_factory.mktemp("finished")
    frames = [metadata.iloc[a:b] for a, b in zip([0, *cuts], [*cuts, 650], strict=True)]
    data = write_dataset(base / "data", np.split(rows, cuts), frames)
    result = dask_dedup.run(
        data,
        base / "out",
        search_threshold=0.85,
        linkage="components",
        cells=1,
        audit_queries=0,
        execute=compute_tasks,
    )
    wide = rows.astype("f8")
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    unit[40] = 0
    cosines = (unit @ unit.T).astype("f4")
    rows = metadata.assign(row_id=np.arange(650), cluster_id=components(cosines, 0.95))
    return Finished(result, data, cosines, rows)


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
    """Its clusters."""
    clusters = pd.read_parquet(small_run / "clusters")
    assert 50 < clusters["is_kept"].sum() < 400
    return clusters


@pytest.fixture(scope="session")
def bytes_run(tmp_path_factory, write_dataset) -> tuple[Path, Path, list[bytes]]:
    """Data, OUT and URLs of 60 rows whose URLs and tags are no UTF-8; the last 20 are copies."""
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype("f4")
    rows[40:] = rows[:20]
    urls = [b"http://x/\xff%d" % i for i in range(60)]
    base = tmp_path_factory.mktemp("bytes")
    data = write_dataset(base / "data", [rows], [pd.DataFrame({"caption": ["c"] * 60})])
    (path,) = (data / "metadata").glob("*.parquet")
    text = pa.Array.from_buffers(pa.string(), 60, pa.array(urls, pa.binary()).buffers())
    tags = pa.ListArray.from_arrays(pa.array(range(61), pa.int32()), text)
    table = pq.read_table(path).append_column("url", text).append_column("tags", tags)
    pq.write_table(table, path)
    run_here(data, base / "out", {"audit.queries": 0, "cells.cells": 1})
    return data, base / "out", urls


@pytest.fixture(scope="session")
def plain():
    """Return a function that makes values comparable."""

    def plain(values):
        """Values to compare: lists for arrays, None for all that is missing."""
        found = [list(v) if isinstance(v, list | np.ndarray) else v for v in values]
        return [None if v is pd.NA or v != v else v for v in found]

    return plain


@pytest.fixture(scope="session")
def counts_of():
    """Return a function that counts the rows for which each row stays."""

    def counts_of(clusters):
        """For how many rows each row stays, itself included."""
        stands = clusters["witness_row_id"].fillna(clusters["row_id"]).astype(int)
        return stands.value_counts().reindex(range(len(clusters)), fill_value=0)

    return counts_of
