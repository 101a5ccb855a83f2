"""Fixtures of the tests of what is read from a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup import Dataset, read_dataset
from dask_dedup.schema import STRING


@pytest.fixture(scope="session")
def destroy_other_columns() -> Callable[[str | Path, Sequence[str]], None]:
    """Return a function that overwrites all columns of a parquet file but some.

    Whoever reads one of the others gets no data, but an error.
    """

    def destroy(path: str | Path, kept: Sequence[str]) -> None:
        metadata = pq.read_metadata(path)
        with open(path, "r+b") as file:
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                for column in map(group.column, range(group.num_columns)):
                    if column.path_in_schema not in kept:
                        file.seek(column.dictionary_page_offset or column.data_page_offset)
                        file.write(b"\xff" * column.total_compressed_size)

    return destroy


ROWS_OF_PARTS = [3, 0, 7, 2, 11]  # four partitions and an empty part


@pytest.fixture
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    layouts = [("<f2", "C"), ("<f4", "C"), (">f8", "F"), (">f4", "C"), ("<f4", "F")]
    return [
        np.asarray(rng.normal(size=(rows, 5)), dtype, order)
        for rows, (dtype, order) in zip(ROWS_OF_PARTS, layouts, strict=True)
    ]


@pytest.fixture
def frames() -> list[pd.DataFrame]:
    numbers = np.arange(sum(ROWS_OF_PARTS))
    whole = pd.DataFrame(
        {
            "URL": [f"http://x/{n}.jpg" if n % 5 else None for n in numbers],
            "TEXT": [f"line {n}\nüber 🦆" if n % 3 else None for n in numbers],
            "NSFW": ["UNLIKELY"] * len(numbers),
            "width": pd.array(numbers * 7, "uint16[pyarrow]"),
            "row_id": [f"own {n}" for n in numbers],
            "tags": pd.array([[n, n + 1] for n in numbers], pd.ArrowDtype(pa.list_(pa.int64()))),
        }
    )
    stops = np.cumsum(ROWS_OF_PARTS)
    return [
        whole.iloc[stop - rows : stop].reset_index(drop=True)
        for stop, rows in zip(stops, ROWS_OF_PARTS, strict=True)
    ]


@pytest.fixture
def dataset(tmp_path, write_dataset, arrays, frames, no_compute) -> Dataset:
    folder = write_dataset(tmp_path / "data", arrays, frames)
    with no_compute():
        return read_dataset(folder)


@pytest.fixture
def expected(frames) -> pd.DataFrame:
    """What pandas makes of all parts."""
    whole = pd.concat(frames, ignore_index=True)
    whole.index = pd.Index(np.arange(len(whole)), name="row_id")
    names = {"URL": "url", "TEXT": "caption", "row_id": "source_row_id"}
    whole = whole.rename(columns=names)
    texts = ["url", "caption", "NSFW", "source_row_id"]
    return whole.astype(dict.fromkeys(texts, STRING))
