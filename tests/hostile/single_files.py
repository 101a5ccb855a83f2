"""Odd and damaged DATA of one file: .npy, or .parquet with a column of embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import DIM, LISTS, ROWS, Case, cut, embeddings, frame

NPY, PARQUET = "only.npy", "only.parquet"


def npy(array: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / NPY, array)


def parquet(**columns: pa.Array) -> Callable[[Path], object]:
    """A file of URLs, captions and columns of one's own."""

    def make(folder: Path) -> None:
        table = pa.Table.from_pandas(frame(), preserve_index=False)
        for name, array in columns.items():
            table = table.append_column(name, array)
        pq.write_table(table, folder / PARQUET)

    return make


def both(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [step(folder) for step in steps]


def with_nan() -> np.ndarray:
    rows = embeddings()
    rows[3] = np.nan
    return rows


CASES: dict[str, Case] = {
    "one .npy": Case(npy(embeddings()), rows=ROWS, data=NPY),
    "one .npy with a row of NaN": Case(npy(with_nan()), "", 1, ROWS, data=NPY),
    "one .npy of no rows": Case(npy(embeddings()[:0]), "empty", data=NPY),
    "one .npy of integers": Case(npy(np.ones((ROWS, DIM), int)), "expected float16", data=NPY),
    "one .npy, cut": Case(both(npy(embeddings()), cut(NPY, 0.5)), "truncated", data=NPY),
    "one .npy, empty": Case(
        lambda folder: (folder / NPY).write_bytes(b""), "expected a .npy file", data=NPY
    ),
    "one .npy, a named pipe": Case(
        lambda folder: os.mkfifo(folder / NPY), "no such folder or file", data=NPY
    ),
    "one .npy that is not there": Case(lambda folder: None, "no such", data=NPY),
    "one .parquet": Case(parquet(emb=pa.array(LISTS)), rows=ROWS, data=PARQUET),
    "one .parquet with null for an embedding": Case(
        parquet(emb=pa.array([None, *LISTS[1:]])), "", 1, ROWS, data=PARQUET
    ),
    "one .parquet without embeddings": Case(parquet(), "embedding", data=PARQUET),
    "one .parquet with two columns of embeddings": Case(
        parquet(a=pa.array(LISTS), b=pa.array(LISTS)), "--embedding-column", data=PARQUET
    ),
    "one .parquet, cut": Case(
        both(parquet(emb=pa.array(LISTS)), cut(PARQUET, 0.6)), "expected a parquet", data=PARQUET
    ),
    "one .parquet, text": Case(
        lambda folder: (folder / PARQUET).write_text("url,emb\n"), "parquet", data=PARQUET
    ),
    "one file of another kind": Case(
        lambda folder: pd.DataFrame({"a": [1]}).to_csv(folder / "only.csv"), "only.csv",
        data="only.csv",
    ),
}  # fmt: skip
