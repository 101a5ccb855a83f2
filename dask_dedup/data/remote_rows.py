"""Rows of ``.npy`` files in an object store: byte ranges, never the whole file."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from fsspec.utils import merge_offset_ranges

from dask_dedup.data.embedding_file import EmbeddingFile
from dask_dedup.errors import InputError
from dask_dedup.storage.objects import read_range, read_ranges, words_of

__all__ = ["fetch_rows", "fetch_single_rows"]

_GAP_BYTES = 128 << 10  # read along rather than asked for again: a request costs milliseconds
_RANGE_BYTES = 8 << 20  # the most of one request
_BATCH_BYTES = 64 << 20  # of requests that run at the same time


def fetch_rows(file: EmbeddingFile, start: int, stop: int) -> np.ndarray:
    """Read rows ``start`` to ``stop``, stored row by row; see `dask_dedup.data.parts.read_rows`."""
    row_bytes = _row_bytes(file)
    first = file.data_offset + start * row_bytes
    try:
        content = read_range(file.path, first, first + (stop - start) * row_bytes)
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({words_of(error)}).") from error
    return _as_rows(file, content, stop - start)


def fetch_single_rows(
    file: EmbeddingFile,
    positions: np.ndarray,
    gap_bytes: int = _GAP_BYTES,
    range_bytes: int = _RANGE_BYTES,
    batch_bytes: int = _BATCH_BYTES,
) -> np.ndarray:
    """Read single rows, neighbours by one range; see `dask_dedup.data.parts.gather_rows`."""
    row_bytes = _row_bytes(file)
    rows = np.empty((len(positions), file.dim), np.dtype(file.dtype).newbyteorder("="))
    starts = file.data_offset + positions.astype(np.int64) * row_bytes
    _, begins, ends = merge_offset_ranges(
        [file.path] * len(positions),
        starts.tolist(),
        (starts + row_bytes).tolist(),
        max_gap=gap_bytes,
        max_block=range_bytes,
        sort=False,
    )
    spans = list(pairwise([*np.searchsorted(starts, begins).tolist(), len(positions)]))
    batches = np.cumsum([0, *np.subtract(ends, begins)])[:-1] // batch_bytes
    for batch in np.unique(batches):
        chosen = np.flatnonzero(batches == batch).tolist()
        try:
            contents = read_ranges(file.path, [(begins[i], ends[i]) for i in chosen])
        except OSError as error:
            raise InputError(f"{file.path}: cannot be read ({words_of(error)}).") from error
        for i, content in zip(chosen, contents, strict=True):
            own = slice(*spans[i])
            inside = (starts[own] - begins[i]) // row_bytes
            rows[own] = _as_rows(file, content, int(inside[-1]) + 1)[inside]
    return rows


def _row_bytes(file: EmbeddingFile) -> int:
    return file.dim * np.dtype(file.dtype).itemsize


def _as_rows(file: EmbeddingFile, content: bytes, rows: int) -> np.ndarray:
    """Return bytes as rows of native byte order, to be written to."""
    if len(content) < rows * _row_bytes(file):
        raise InputError(
            f"{file.path}: changed while it was being read; it is shorter than its header said."
        )
    stored = np.frombuffer(bytearray(content), file.dtype).reshape(rows, file.dim)
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)
