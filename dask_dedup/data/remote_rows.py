"""Rows of ``.npy`` files in an object store: byte ranges, never the whole file."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

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


def fetch_single_rows(file: EmbeddingFile, positions: np.ndarray) -> np.ndarray:
    """Read single rows, neighbours by one range; see `dask_dedup.data.parts.gather_rows`."""
    row_bytes = _row_bytes(file)
    rows = np.empty((len(positions), file.dim), np.dtype(file.dtype).newbyteorder("="))
    spans = _spans(positions, row_bytes)
    begin = 0
    while begin < len(spans):
        end, size = begin, 0
        while end < len(spans) and (end == begin or size < _BATCH_BYTES):
            first, last = positions[spans[end][0]], positions[spans[end][1] - 1]
            size += int(last + 1 - first) * row_bytes
            end += 1
        ranges = [
            (
                file.data_offset + int(positions[one]) * row_bytes,
                file.data_offset + int(positions[other - 1] + 1) * row_bytes,
            )
            for one, other in spans[begin:end]
        ]
        try:
            contents = read_ranges(file.path, ranges)
        except OSError as error:
            raise InputError(f"{file.path}: cannot be read ({words_of(error)}).") from error
        for (one, other), content in zip(spans[begin:end], contents, strict=True):
            own = positions[one:other] - positions[one]
            rows[one:other] = _as_rows(file, content, int(own[-1]) + 1)[own]
        begin = end
    return rows


def _spans(positions: np.ndarray, row_bytes: int) -> list[tuple[int, int]]:
    """Cut sorted positions into runs that one range each reads."""
    if not len(positions):
        return []
    gaps = np.diff(positions) * row_bytes > _GAP_BYTES + row_bytes
    most = max(1, _RANGE_BYTES // row_bytes)
    cuts = [0]
    for stop in [*(np.flatnonzero(gaps) + 1).tolist(), len(positions)]:
        while positions[stop - 1] - positions[cuts[-1]] >= most:  # a run that is too long
            limit = positions[cuts[-1]] + most
            cuts.append(int(np.searchsorted(positions, limit)))
        cuts.append(stop)
    return list(pairwise(cuts))


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
