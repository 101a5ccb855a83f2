"""Embeddings in a list column of parquet files, read in bounded chunks.

A null row, and one whose list has another length than most, is read as NaN: invalid. One wrapper
around the list is taken off: a struct with one list, or a list that holds one list. Integers become
floating point: up to 16 bits float16 or float32, and up to 53 bits float64, exactly.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import local
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dask_dedup.data.embedding_file import EmbeddingFile, one_line
from dask_dedup.data.list_types import SEVERAL, describe_lists, list_lengths, plain_lists
from dask_dedup.errors import InputError
from dask_dedup.storage.objects import open_parquet_source, version_of

__all__ = ["ColumnHeader", "read_column_header", "settle_dimension", "take_column_rows"]

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 32 << 20  # of rows decoded at a time
_COUNT_BYTES = 512 << 20  # of all files together, decoded to find the dimension
_LEAST_COUNT_BYTES = 1 << 20  # of each file
_COUNT_ROWS = 1024  # decoded at a time


class ColumnHeader(NamedTuple):
    """What is known of the embeddings in one file before the dimension of the data set is.

    Attributes
    ----------
    file : EmbeddingFile
        Of dimension 0.
    lengths : Counter
        Rows of the file by the length of their lists, as `list_lengths` gives it: counted, or
        scaled up from a sample. Null and empty ones are left out.
    is_sample : bool
    """

    file: EmbeddingFile
    lengths: Counter[int]
    is_sample: bool


def read_column_header(path: str, column: str, files: int = 1) -> ColumnHeader:
    """Read the type of a list column, and count how long its lists are.

    Lists of fixed size are known by their type. Of others, the footers do not hold the lengths,
    so values are decoded: all, where the column takes no more than its share of 512 MB, the number
    of ``files`` being what they are shared among, or 1 MB; otherwise as much from the first, the
    middle and the last row group. With 2·10⁹ rows of 768 in 2,314 files these are 2.3 GB, of 6 TB.

    Raises
    ------
    InputError
        The file cannot be read, has no such column, or it holds no lists of numbers.
    """
    try:
        with _open(path) as file:
            schema = file.schema_arrow
            if schema.names.count(column) != 1:
                raise InputError(
                    f"{path}: expected one column {column!r} (embedding_column); the columns are "
                    f"{', '.join(schema.names)}."
                )
            dtype, size = describe_lists(path, column, schema.field(column).type)
            rows = file.metadata.num_rows
            found = EmbeddingFile(path, rows, 0, dtype, False, 0, column)
            if size is not None:
                return ColumnHeader(found, Counter({size: rows} if size else {}), False)
            share = max(_LEAST_COUNT_BYTES, _COUNT_BYTES // files)
            return ColumnHeader(found, *_count_lengths(file, column, share))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}).") from error


def _count_lengths(
    file: pq.ParquetFile, column: str, most_bytes: int, at_once: int = _COUNT_ROWS
) -> tuple[Counter[int], bool]:
    """Return how many lists there are of each length, and whether a sample was counted."""
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    size_bytes = sum(
        group.column(i).total_uncompressed_size
        for group in groups
        for i in range(group.num_columns)
        if f"{group.column(i).path_in_schema}.".startswith(f"{column}.")
    )
    chosen: Sequence[int] = [i for i, group in enumerate(groups) if group.num_rows]
    is_sample = size_bytes > most_bytes
    if is_sample:
        chosen = sorted({chosen[0], chosen[len(chosen) // 2], chosen[-1]})
        most_bytes //= len(chosen)
    lengths: Counter[int] = Counter()
    for group in chosen:
        own: Counter[int] = Counter()
        looked_at = done = 0
        for batch in file.iter_batches(at_once, [group], columns=[column], use_threads=False):
            array = batch.column(0)
            values, counts = np.unique(list_lengths(array), return_counts=True)
            own.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            looked_at += len(array)
            done += array.nbytes
            if is_sample and done >= most_bytes:
                break
        # A sampled group stands for its share of the file, however many short lists fit into it.
        scale = file.metadata.num_rows / len(chosen) / looked_at if is_sample else 1
        lengths.update({length: round(n * scale) for length, n in own.items() if length})
    return lengths, is_sample


def settle_dimension(headers: Sequence[ColumnHeader]) -> list[EmbeddingFile]:
    """Return the files with the dimension that most rows of all of them have.

    Of two with as many rows the larger: placeholders are short. Without any such row it is 1.

    Raises
    ------
    InputError
        Most rows are lists of several lists.
    """
    lengths: Counter[int] = Counter()
    for header in headers:
        lengths.update(header.lengths)
    dim = max(lengths, key=lambda length: (lengths[length], length), default=1)
    if dim == SEVERAL:
        file = next(header.file for header in headers if header.lengths[SEVERAL])
        raise InputError(
            f"{file.path}: column {file.column!r} (embedding_column) holds several lists in most "
            f"rows; expected one embedding a row."
        )
    others = {length: n for length, n in lengths.most_common() if length != dim}
    if others:
        logger.warning(
            "column %r: dimension %d, as most rows have; %s%s rows of other lengths (%s) count as "
            "invalid",
            headers[0].file.column,
            dim,
            "about " if any(header.is_sample for header in headers) else "",
            f"{sum(others.values()):,}",
            ", ".join(str(n) if n > 0 else "several lists" for n in list(others)[:4])
            + (", …" if len(others) > 4 else ""),
        )
    return [replace(header.file, dim=dim) for header in headers]


def take_column_rows(
    file: EmbeddingFile, positions: np.ndarray, chunk_bytes: int = _CHUNK_BYTES
) -> np.ndarray:
    """Read some rows of a list column.

    Reading on from where this thread has read before goes on in the open file.

    Parameters
    ----------
    positions : int64 array, sorted
    chunk_bytes : int
        Of rows decoded at a time.

    Returns
    -------
    array, shape (len(positions), dim), of the column's type
    """
    rows = np.empty((len(positions), file.dim), file.dtype)
    try:
        reader = _reader_of(file, chunk_bytes)
        done = 0
        while done < len(positions):
            reader.move_to(int(positions[done]))
            upto = int(np.searchsorted(positions, reader.stop))
            rows[done:upto] = reader.block()[positions[done:upto] - reader.start]
            done = upto
    except (OSError, ValueError, pa.ArrowException) as error:
        _OPEN.__dict__.clear()
        raise InputError(f"{file.path}: cannot be read ({one_line(error)}).") from error
    return rows


class _Reader:
    """One open file, and the chunk of rows ``start`` to ``stop`` that was decoded last."""

    def __init__(self, file: EmbeddingFile, chunk_bytes: int) -> None:
        self.file = file
        self._chunk_rows = max(1, chunk_bytes // (8 * file.dim))
        self.start = self.stop = 0
        self._parquet = _open(file.path)
        groups = range(self._parquet.metadata.num_row_groups)
        sizes = [self._parquet.metadata.row_group(i).num_rows for i in groups]
        self._group_stops = np.cumsum(sizes)
        self._batches: Iterator[Any] = iter(())
        self._array: Any = None
        self._block: np.ndarray | None = None
        if sum(sizes) != file.rows:
            raise InputError(
                f"{file.path}: {sum(sizes)} rows, but it had {file.rows} when the run began."
            )

    def move_to(self, position: int) -> None:
        """Make the chunk that holds a position the current one."""
        if self.start <= position < self.stop:
            return
        group = int(np.searchsorted(self._group_stops, position, "right"))
        group_start = int(self._group_stops[group - 1]) if group else 0
        if position < self.stop or group_start > self.stop or self._array is None:
            groups = list(range(group, len(self._group_stops)))
            self._batches = self._parquet.iter_batches(
                self._chunk_rows, groups, columns=[self.file.column], use_threads=False
            )
            self.stop = group_start
        while position >= self.stop:
            self._array, self._block = next(self._batches).column(0), None
            self.start, self.stop = self.stop, self.stop + len(self._array)

    def block(self) -> np.ndarray:
        """Return the current chunk: shape (stop - start, dim)."""
        if self._block is None:
            self._block = _to_rows(plain_lists(self._array), self.file.dim, self.file.dtype)
        return self._block


_OPEN = local()  # each thread has one file open


def _reader_of(file: EmbeddingFile, chunk_bytes: int) -> _Reader:
    key = file, version_of(file.path), chunk_bytes
    if getattr(_OPEN, "key", None) != key:
        _OPEN.reader, _OPEN.key = _Reader(file, chunk_bytes), key
    return _OPEN.reader


def _open(path: str) -> pq.ParquetFile:
    return pq.ParquetFile(open_parquet_source(path), pre_buffer=False, buffer_size=1 << 20)


def _to_rows(lists: pa.Array, dim: int, dtype: str) -> np.ndarray:
    """Turn lists into rows; null ones and those of another length into NaN."""
    lengths = pc.list_value_length(lists).fill_null(-1).to_numpy(zero_copy_only=False)
    flat = lists.flatten()  # without what null rows hide
    values = flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    whole = lengths == dim
    if whole.all():
        return values.reshape(-1, dim)
    rows = np.full((len(lists), dim), np.nan, dtype)
    there = lengths[lengths >= 0]
    rows[whole] = values[np.repeat(there == dim, there)].reshape(-1, dim)
    return rows
