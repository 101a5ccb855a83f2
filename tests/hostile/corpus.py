"""Damaged and odd inputs, made by code: each case changes a small data set that is in order."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, DIM = 40, 8
EMBEDDINGS = "img_emb/part_1.npy"
METADATA = "metadata/part_1.parquet"


class Case(NamedTuple):
    """One input: how it is made, and what it must come to.

    ``says`` are words of the one error of `dask-dedup run` with ``options``; without, a run with
    ``settings`` ends well, ``rows`` are counted and ``invalid`` of them are invalid.
    ``late`` errors need the values: they come from a task. DATA is ``data`` in the folder, if any.
    """

    make: Callable[[Path], object]
    says: str = ""
    invalid: int = 0
    rows: int = 2 * ROWS
    options: tuple[str, ...] = ()
    settings: dict | None = None
    late: bool = False
    data: str = ""


def embeddings(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32)


def frame(seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(
        {"url": [f"http://x/{seed}/{i}.jpg" for i in range(ROWS)], "caption": "a cat"}
    )


def write_good(folder: Path) -> None:
    """Write two parts that are in order."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for part in range(2):
        np.save(folder / f"img_emb/part_{part}.npy", embeddings(part))
        frame(part).to_parquet(folder / f"metadata/part_{part}.parquet", index=False)


def saved(array: np.ndarray, **options: bool) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / EMBEDDINGS, array, **options)


def content(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, keep: float) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return make


def replaced_by(name: str, put: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / name).unlink()
        put(folder / name)

    return make


def header(text: str, data: bytes = b"\0" * 4 * ROWS * DIM, version: int = 1) -> Callable:
    """An .npy file with a header of one's own."""
    padded = text.ljust(117) + "\n"
    start = b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(padded))
    return content(EMBEDDINGS, start + padded.encode("latin1") + data)


def described(
    shape: str = f"({ROWS}, {DIM})", descr: str = "'<f4'", order: str = "False"
) -> Callable:
    return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}")


def columns(url: object = "url", **arrays: pa.Array) -> Callable[[Path], object]:
    """Metadata of the second part, with columns of one's own."""

    def make(folder: Path) -> None:
        urls = pa.array(frame(1)["url"].tolist()) if isinstance(url, str) else url
        whole = {**({} if url is None else {"url": urls}), **arrays}
        pq.write_table(pa.table(whole), folder / METADATA)

    return make


def one_row(value: float, dtype: type = np.float32) -> Callable[[Path], object]:
    rows = embeddings(1).astype(dtype)
    rows[3] = value
    return saved(rows)


def more_bytes(folder: Path) -> None:
    with (folder / EMBEDDINGS).open("ab") as file:
        file.write(b"\0" * 100)


class Trap:
    """Would write a file if it were unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("unpickled",)


def bad_utf8(folder: Path) -> None:
    values = pa.array([b"http://x/\xff.jpg"] * ROWS, pa.binary())
    buffers = values.buffers()
    text = pa.Array.from_buffers(pa.string(), ROWS, buffers)
    pq.write_table(pa.table({"url": text}), folder / METADATA)


def beside(first: object, second: object) -> Callable[[Path], object]:
    """A column that holds one value in the first part and another in the second."""

    def make(folder: Path) -> None:
        for part, value in enumerate((first, second)):
            whole = frame(part)
            whole["size"] = [value] * ROWS
            whole.to_parquet(folder / f"metadata/part_{part}.parquet", index=False)

    return make


def captions(array: pa.Array) -> Callable[[Path], object]:
    """Captions of one's own in both parts."""

    def make(folder: Path) -> None:
        for part in range(2):
            table = pa.table({"url": frame(part)["url"].tolist(), "caption": array})
            pq.write_table(table, folder / f"metadata/part_{part}.parquet")

    return make


def no_such(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def empty_part(folder: Path) -> None:
    np.save(folder / EMBEDDINGS, np.empty((0, DIM), np.float32))
    frame().iloc[:0].to_parquet(folder / METADATA, index=False)


def all_equal(folder: Path) -> None:
    for part in range(2):
        np.save(folder / f"img_emb/part_{part}.npy", np.ones((ROWS, DIM), np.float32))


def one_dimension(folder: Path) -> None:
    for part in range(2):
        np.save(folder / f"img_emb/part_{part}.npy", embeddings(part)[:, :1])


def one_row_in_all(folder: Path) -> None:
    for part in range(2):
        np.save(folder / f"img_emb/part_{part}.npy", embeddings()[:part])
        frame().iloc[:part].to_parquet(folder / f"metadata/part_{part}.parquet", index=False)


def nothing_usable(folder: Path) -> None:
    for part in range(2):
        np.save(folder / f"img_emb/part_{part}.npy", np.zeros((ROWS, DIM), np.float32))


def escapes(folder: Path) -> None:
    names = {"url": frame(1)["url"], "\x1b[31mred\n\x07": "x"}
    pd.DataFrame(names).to_parquet(folder / METADATA, index=False)


def renamed(name: str, other: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).rename(folder / other)


def format_3(folder: Path) -> None:
    with open(folder / EMBEDDINGS, "wb") as out:
        np.lib.format.write_array(out, embeddings(1), version=(3, 0))


def escapes_in_a_file_name(folder: Path) -> None:
    (folder / EMBEDDINGS).unlink()
    (folder / "img_emb/part_1\x1b]0;owned\x07\x1b[2J.npy").write_bytes(b"junk")


def in_a_column(second: pa.Array) -> Callable[[Path], object]:
    """Put the embeddings into a column of the metadata, those of the second part as given."""

    def make(folder: Path) -> None:
        for part, own in enumerate([pa.array(embeddings().tolist()), second]):
            path = folder / f"metadata/part_{part}.parquet"
            pq.write_table(pq.read_table(path).append_column("emb", own), path)
        shutil.rmtree(folder / "img_emb")

    return make


COLUMN: dict = {"read": {"embedding_column": "emb"}}
LISTS = embeddings(1).tolist()


def structured() -> np.ndarray:
    return np.zeros(ROWS, [("a", np.float32), ("b", np.float32)])


NOT_NPY = "expected a .npy file"
NOT_PARQUET = "expected a parquet file"
OBJECTS = np.array([Trap()], dtype=object)

CASES: dict[str, Case] = {
    # .npy files
    "empty .npy": Case(content(EMBEDDINGS, b""), NOT_NPY),
    "text for .npy": Case(content(EMBEDDINGS, b"row,x,y\n1,2,3\n"), NOT_NPY),
    "wrong magic": Case(content(EMBEDDINGS, b"\x93NUMPX" + b"\0" * 200), NOT_NPY),
    "format version 9": Case(header("{}", version=9), NOT_NPY),
    "header cut": Case(cut(EMBEDDINGS, 0.05), NOT_NPY),
    "data cut": Case(cut(EMBEDDINGS, 0.7), "truncated"),
    "header is code": Case(header("__import__('os').mkdir('unpickled')"), NOT_NPY),
    "header of 10^4 brackets": Case(header("(" * 10_000), NOT_NPY),
    "shape of 2^62 rows": Case(described(f"({2**62}, {DIM})"), "truncated"),
    "shape beyond 64 bits": Case(described(f"({10**40}, {DIM})"), "truncated"),
    "negative shape": Case(described(f"(-1, {DIM})"), "expected an array of shape"),
    "shape of text": Case(described("'many'"), NOT_NPY),
    "dimension 0": Case(described(f"({ROWS}, 0)"), "dimension 0"),
    "one-dimensional": Case(saved(embeddings()[:, 0]), "expected an array of shape"),
    "three-dimensional": Case(saved(embeddings()[:, :, None]), "expected an array of shape"),
    "integers": Case(saved(embeddings().astype(np.int32)), "expected float16"),
    "truth values": Case(saved(embeddings() > 0), "expected float16"),
    "complex numbers": Case(saved(embeddings() + 1j), "expected float16"),
    "structured rows": Case(saved(structured()), "expected float16"),
    "text in an array": Case(saved(np.array([["a"]])), "expected float16"),
    "objects (a pickle)": Case(saved(OBJECTS, allow_pickle=True), "never unpickled"),
    "bare pickle": Case(content(EMBEDDINGS, pickle.dumps(Trap())), NOT_NPY),
    "more rows than metadata": Case(saved(np.r_[embeddings(), embeddings()]), "80 embeddings"),
    "another dimension": Case(saved(embeddings()[:, :5]), "have dimension 5"),
    "big-endian": Case(saved(embeddings(1).astype(">f4"))),
    "float64": Case(saved(embeddings(1).astype(np.float64))),
    "column by column": Case(saved(np.asfortranarray(embeddings(1)))),
    "bytes behind the end": Case(more_bytes),
    "format version 3": Case(format_3),
    "batches of one row": Case(saved(embeddings(1)[:, None])),
    "zip archive": Case(content(EMBEDDINGS, b"PK\x03\x04" + b"\0" * 100), NOT_NPY),
    # what stands where a file should
    "folder for .npy": Case(replaced_by(EMBEDDINGS, Path.mkdir), "1 embedding file"),
    "dangling link": Case(
        replaced_by(EMBEDDINGS, lambda path: path.symlink_to("nowhere")), "1 embedding file"
    ),
    "link to itself": Case(
        replaced_by(EMBEDDINGS, lambda path: path.symlink_to(path.name)), "Too many levels"
    ),
    "named pipe for .npy": Case(replaced_by(EMBEDDINGS, os.mkfifo), "1 embedding file"),
    "named pipe for .parquet": Case(replaced_by(METADATA, os.mkfifo), "2 embedding files"),
    "no second .npy": Case(no_such(EMBEDDINGS), "1 embedding file"),
    "no second .parquet": Case(no_such(METADATA), "2 embedding files"),
    "another shard missing in each folder": Case(
        renamed(EMBEDDINGS, "img_emb/part_2.npy"), "embeddings lack 1, metadata lack 2"
    ),
    "terminal escapes in a file's name": Case(escapes_in_a_file_name, r"part_1\x1b]0;owned\x07"),
    "a file's name in Latin-1": Case(
        renamed(EMBEDDINGS, "img_emb/t\udceate_1.npy"), "the name is not UTF-8"
    ),
    "an empty text_emb beside images": Case(lambda folder: (folder / "text_emb").mkdir()),
    # embeddings in a column
    "a column of lists": Case(in_a_column(pa.array(LISTS)), settings=COLUMN),
    "a part's column is null": Case(in_a_column(pa.nulls(ROWS)), "", ROWS, settings=COLUMN),
    "a part's column is lists of null": Case(
        in_a_column(pa.nulls(ROWS, pa.list_(pa.null()))), "", ROWS, settings=COLUMN
    ),
    "a part's column is integers": Case(
        in_a_column(pa.array((20 * embeddings(1)).round().astype(int).tolist())), settings=COLUMN
    ),
    "a column of structs with a list": Case(
        in_a_column(pa.array([{"model": "m", "vector": one} for one in LISTS])), settings=COLUMN
    ),
    "a column of lists of one list": Case(
        in_a_column(pa.array([[one] for one in LISTS])), settings=COLUMN
    ),
    "placeholders in front of a column": Case(
        in_a_column(pa.array([[1.0]] * 30 + LISTS[30:])), "", 30, settings=COLUMN
    ),
    "a column of text": Case(
        in_a_column(pa.array(["x"] * ROWS)),
        "expected to hold lists",
        options=("--embedding-column", "emb"),
    ),
    # values
    "a row of NaN": Case(one_row(np.nan), invalid=1),
    "a row of infinity": Case(one_row(np.inf), invalid=1),
    "a row of zeros": Case(one_row(0.0), invalid=1),
    "a row of the smallest floats": Case(one_row(1e-45)),
    "a row of the largest floats": Case(one_row(3e38)),
    "a row of the smallest doubles": Case(one_row(5e-324, np.float64)),
    "a row of the largest doubles": Case(one_row(1.7e308, np.float64)),
    "no usable row": Case(nothing_usable, "is usable", late=True),
    "all rows equal": Case(all_equal),
    "dimension 1": Case(one_dimension),
    "one row in all": Case(one_row_in_all, rows=1),
    "an empty part": Case(empty_part, rows=ROWS),
    # parquet
    "empty .parquet": Case(content(METADATA, b""), NOT_PARQUET),
    "CSV named .parquet": Case(content(METADATA, b"url,caption\nx,y\n"), NOT_PARQUET),
    ".parquet cut": Case(cut(METADATA, 0.6), NOT_PARQUET),
    "footer length lies": Case(
        content(METADATA, b"PAR1" + b"\0" * 64 + struct.pack("<I", 2**31 - 1) + b"PAR1"),
        NOT_PARQUET,
    ),
    "fewer metadata rows": Case(
        lambda folder: frame().iloc[:7].to_parquet(folder / METADATA, index=False), "has 7 rows"
    ),
    "a column twice": Case(
        lambda folder: pq.write_table(
            pa.Table.from_arrays([pa.array(range(ROWS))] * 2, ["a", "a"]), folder / METADATA
        ),
        "more than once",
    ),
    "URLs are lists in one part": Case(columns(url=pa.array([["a"]] * ROWS)), "no type holds"),
    "captions are lists": Case(captions(pa.array([["a", "b"]] * ROWS))),
    "captions are lists, and named": Case(
        captions(pa.array([["a", "b"]] * ROWS)),
        "expected to be text",
        options=("--caption-column", "caption"),
    ),
    "url and caption in one part, URL and TEXT in the other": Case(
        columns(None, URL=pa.array(["u"] * ROWS), TEXT=pa.array(["c"] * ROWS))
    ),
    "URLs are numbers": Case(columns(url=pa.array(range(ROWS)))),
    "URLs are times": Case(columns(url=pa.array([0] * ROWS, pa.timestamp("us")))),
    "URLs are a dictionary": Case(columns(url=pa.array(["u"] * ROWS).dictionary_encode())),
    "URLs are null": Case(columns(url=pa.nulls(ROWS, pa.string()))),
    "URLs are no UTF-8 (carried as they are)": Case(bad_utf8),
    "captions are decimals": Case(columns(caption=pa.array([1] * ROWS).cast(pa.decimal128(21, 2)))),
    "nested columns": Case(columns(exif=pa.array([{"a": [1]}] * ROWS))),
    "integers above 2^53 beside doubles": Case(beside(2**53 + 1, 0.5), "not exact as double"),
    "integers above 2^53 beside whole doubles": Case(beside(2**53 + 1, 5.0)),
    "uint64 beside int64 that fits": Case(beside(np.uint64(2**64 - 1), 5)),
    "uint64 beside int64 that does not fit": Case(beside(np.uint64(2**64 - 1), -5), "fit no type"),
    "text beside numbers": Case(beside("x", 5), "no type holds the values of both"),
    "text beside numbers, not carried": Case(
        beside("x", 5), settings={"read": {"drop_columns": ["size"]}}
    ),
    "a column to drop that is not there": Case(
        lambda folder: None, "no column 'link'", options=("--drop-columns", "url,link")
    ),
    "lists of nothing but null": Case(columns(x=pa.array([[None]] * ROWS))),
    "1,000 columns": Case(columns(**{f"c{i}": pa.array([i] * ROWS) for i in range(1000)})),
    "terminal escapes in a name": Case(escapes),
    "columns of our own names": Case(columns(cluster_id=pa.array(range(ROWS)))),
    "no URL in any part": Case(
        lambda folder: [
            pd.DataFrame({"n": range(ROWS)}).to_parquet(path)
            for path in (folder / "metadata").iterdir()
        ]
    ),
    "a column that is not there": Case(
        lambda folder: None, "no column 'link'", options=("--url-column", "link")
    ),
    # settings
    "unknown setting": Case(
        lambda folder: None, "clusters.thresh", options=("--set", "clusters.thresh=1")
    ),
    "NaN for a setting": Case(
        lambda folder: None, "threshold", options=("--set", "clusters.threshold=nan")
    ),
    "text for a number": Case(
        lambda folder: None, "cells.cells", options=("--set", "cells.cells=many")
    ),
    "number beyond 64 bits": Case(
        lambda folder: None, "cells.cells", options=("--set", f"cells.cells={10**30}")
    ),
    "a table for a number": Case(lambda folder: None, "seed", options=("--set", "seed={a=1}")),
    "negative memory": Case(lambda folder: None, "memory", options=("--memory", "-1GB")),
    "more cells than rows": Case(lambda folder: None, settings={"cells": {"cells": 5000}}),
    "dimension above the rows'": Case(lambda folder: None, settings={"projection": {"dim": 1024}}),
}
