"""Embeddings in a list column of parquet files, read in bounded chunks.

A null row, and one whose list has another length than the others, is read as NaN: invalid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import local
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dask_dedup.errors import InputError
from dask_dedup.io.embedding_file import EmbeddingFile, one_line
from dask_dedup.io.objects import open_parquet_source, version_of

__all__ = ["read_column_header", "settle_dimensions", "take_column_rows"]

_CHUNK_BYTES = 32 << 20  # of rows decoded at a time
_HEAD_ROWS = 256
_DTYPES = {pa.float16(): "<f2", pa.float32(): "<f4", pa.float64(): "<f8"}


def read_column_header(path: str, column: str) -> EmbeddingFile:
    """Find dtype and dimension of a list column: those of its type, or of its first rows.

    The dimension is 0 where no row tells it.

    Raises
    ------
    InputError
        The file cannot be read, has no such column, or it holds no lists of floating point.
    """
    try:
        with _open(path) as file:
            schema = file.schema_arrow
            if schema.names.count(column) != 1:
                raise InputError(
                    f"{path}: expected one column {column!r} (embedding_column); the columns are "
                    f"{', '.join(schema.names)}."
                )
            dtype, dim = _read_type(path, column, schema.field(column).type)
            if dim == 0:
                for batch in file.iter_batches(_HEAD_ROWS, columns=[column]):
                    lengths = pc.list_value_length(_plain(batch.column(0))).drop_null().to_numpy()
                    lengths = lengths[lengths > 0]
                    if len(lengths):
                        dim = int(np.bincount(lengths).argmax())
                        break
            return EmbeddingFile(path, file.metadata.num_rows, dim, dtype, False, 0, column)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}).") from error


def settle_dimensions(files: list[EmbeddingFile]) -> list[EmbeddingFile]:
    """Give the dimension of the others to files in which no row tells it."""
    known = next((file.dim for file in files if file.dim), 1)
    return [file if file.dim else replace(file, dim=known) for file in files]


def take_column_rows(file: EmbeddingFile, positions: np.ndarray) -> np.ndarray:
    """Read some rows of a list column.

    Reading on from where this thread has read before goes on in the open file.

    Parameters
    ----------
    positions : int64 array, sorted

    Returns
    -------
    array, shape (len(positions), dim), of the column's type
    """
    rows = np.empty((len(positions), file.dim), file.dtype)
    try:
        reader = _reader_of(file)
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

    def __init__(self, file: EmbeddingFile) -> None:
        self.file = file
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
            rows = max(1, _CHUNK_BYTES // (8 * self.file.dim))
            groups = list(range(group, len(self._group_stops)))
            self._batches = self._parquet.iter_batches(
                rows, groups, columns=[self.file.column], use_threads=False
            )
            self.stop = group_start
        while position >= self.stop:
            self._array, self._block = next(self._batches).column(0), None
            self.start, self.stop = self.stop, self.stop + len(self._array)

    def block(self) -> np.ndarray:
        """Return the current chunk: shape (stop - start, dim)."""
        if self._block is None:
            self._block = _to_rows(_plain(self._array), self.file.dim, self.file.dtype)
        return self._block


_OPEN = local()  # each thread has one file open


def _reader_of(file: EmbeddingFile) -> _Reader:
    key = file, version_of(file.path)
    if getattr(_OPEN, "key", None) != key:
        _OPEN.reader, _OPEN.key = _Reader(file), key
    return _OPEN.reader


def _open(path: str) -> pq.ParquetFile:
    return pq.ParquetFile(open_parquet_source(path), pre_buffer=False, buffer_size=1 << 20)


def _read_type(path: str, column: str, arrow_type: pa.DataType) -> tuple[str, int]:
    """Return the dtype of a list column, and its dimension where the type tells it, or 0."""
    plain = arrow_type.storage_type if isinstance(arrow_type, pa.BaseExtensionType) else arrow_type
    is_fixed = pa.types.is_fixed_size_list(plain)
    is_list = is_fixed or pa.types.is_list(plain) or pa.types.is_large_list(plain)
    if not is_list or plain.value_type not in _DTYPES:
        raise InputError(
            f"{path}: column {column!r} (embedding_column) is expected to hold lists of float16, "
            f"float32 or float64, got {arrow_type}."
        )
    return _DTYPES[plain.value_type], int(plain.list_size) if is_fixed else 0


def _plain(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


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
