"""The part, one metadata file and its embedding files with global row ids; reading its rows.

A read that fails is tried again. Rows of a file that is quarantined (`EmbeddingFile.problem`) are
NaN.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from dask_dedup.data.column_rows import take_column_rows
from dask_dedup.data.embedding_file import EmbeddingFile, one_line
from dask_dedup.data.remote_rows import fetch_rows, fetch_single_rows
from dask_dedup.errors import InputError, UnreadableError
from dask_dedup.paths import is_remote
from dask_dedup.storage.objects import read_range, size_of, words_of

__all__ = [
    "EmbeddingFile",
    "Part",
    "gather_rows",
    "one_line",
    "read_again",
    "read_npy_header",
    "read_rows",
]

_HEADER_BYTES = 1 << 14  # of a .npy file: some 128 hold its header
_PARSING = Lock()
_GATHER_BYTES = 64 << 20  # pages mapped at a time: they count as a worker's own memory


@dataclass(frozen=True)
class Part:
    """One input file range; tasks take neighbouring ones together, see `dask_dedup.data.spans`.

    Attributes
    ----------
    index : int
        Position among the parts in natural order of the file names.
    row_start : int
        ``row_id`` of the first row.
    metadata_path : str
        Empty where the data set has no metadata.
    embeddings : EmbeddingFile
        The modality that is compared.
    text_embeddings : EmbeddingFile or None
    metadata_problem : str or None
        Why the metadata cannot be read, where they are quarantined: their columns are null.
    """

    index: int
    row_start: int
    metadata_path: str
    embeddings: EmbeddingFile
    text_embeddings: EmbeddingFile | None = None
    metadata_problem: str | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.embeddings.rows

    @property
    def row_stop(self) -> int:
        """``row_id`` after the last row."""
        return self.row_start + self.rows


def read_npy_header(path: str) -> EmbeddingFile:
    """Read and check the header of one embedding file; the values stay unread.

    Raises
    ------
    InputError
        Not a ``.npy`` file, not of shape (rows, dim) or (rows, 1, dim), not of floating point, or
        shorter than its header says. Object arrays are refused, never unpickled.
    """
    try:
        # One at a time: Python's parser, which numpy reads headers with, raises SystemError now and
        # then where two threads are in it.
        with _open_header(path) as file, _PARSING:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            elif version in ((2, 0), (3, 0)):  # the same, but for names of fields beyond Latin-1
                shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise InputError(
                    f"{path}: expected a .npy file of format version 1 to 3, got "
                    f"{version[0]}.{version[1]}. Write it again with numpy.save."
                )
            data_offset = file.tell()
        size_bytes = size_of(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({words_of(error)}).") from error
    except InputError:
        raise
    except Exception as error:  # numpy raises half a dozen kinds on damaged headers
        raise InputError(
            f"{path}: expected a .npy file, but its header cannot be read ({one_line(error)}). "
            f"The file is damaged or of another format; write it again with numpy.save."
        ) from error
    if dtype.hasobject:
        raise InputError(
            f"{path}: holds Python objects, which are never unpickled. "
            f"Expected a float16, float32 or float64 array of shape (rows, dim)."
        )
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise InputError(f"{path}: expected float16, float32 or float64 values, got {dtype}.")
    if len(shape) == 3 and shape[1] == 1:  # a batch of one for each row
        shape = shape[0], shape[2]
    if len(shape) != 2 or min(shape) < 0:
        raise InputError(f"{path}: expected an array of shape (rows, dim), got shape {shape}.")
    rows, dim = map(int, shape)
    if dim == 0:
        raise InputError(f"{path}: embeddings have dimension 0.")
    expected_bytes = data_offset + rows * dim * dtype.itemsize
    if size_bytes < expected_bytes:
        raise InputError(
            f"{path}: truncated. {rows} rows of dimension {dim} ({dtype}) need "
            f"{expected_bytes} bytes, but the file has {size_bytes}. Copy or write it again."
        )
    return EmbeddingFile(path, rows, dim, dtype.str, fortran_order, data_offset)


def _open_header(path: str) -> BinaryIO:
    """Return the first bytes of a file, which hold its header."""
    if is_remote(path):
        return io.BytesIO(read_range(path, 0, _HEADER_BYTES))
    with open(path, "rb") as file:
        return io.BytesIO(file.read(_HEADER_BYTES))


def read_rows(file: EmbeddingFile, start: int, stop: int) -> np.ndarray:
    """Read rows ``start`` to ``stop`` of one file, in the stored dtype.

    Returns
    -------
    ndarray, shape (stop - start, dim), C order, native byte order
        NaN where the file is quarantined.

    Raises
    ------
    UnreadableError
        The file has become shorter since its header was read, or cannot be read at all.
    """
    if file.problem is not None:
        return _unread(file, stop - start)
    return read_again(file.path, _read_rows, file, start, stop)


def _read_rows(file: EmbeddingFile, start: int, stop: int) -> np.ndarray:
    if file.column is not None:
        return take_column_rows(file, np.arange(start, stop))
    if is_remote(file.path) and not file.fortran_order:
        return fetch_rows(file, start, stop)
    native = np.dtype(file.dtype).newbyteorder("=")
    if file.fortran_order or np.dtype(file.dtype) != native:
        _check_size(file)
        return np.ascontiguousarray(file.map()[start:stop], native)
    row_bytes = file.dim * native.itemsize
    block = np.empty((stop - start, file.dim), native)
    try:
        with open(file.path, "rb", buffering=0) as handle:
            handle.seek(file.data_offset + start * row_bytes)
            view = block.data.cast("B") if block.size else memoryview(b"")
            filled = 0
            while filled < len(view):
                count = handle.readinto(view[filled:])
                if not count:
                    _check_size(file)
                    raise InputError(f"{file.path}: ended while it was being read.")
                filled += count
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror or error}).") from error
    return block


def gather_rows(file: EmbeddingFile, positions: np.ndarray) -> np.ndarray:
    """Read single rows of one file, in the stored dtype.

    Parameters
    ----------
    positions : int64 array, sorted
        Positions inside the file.

    Returns
    -------
    ndarray, shape (len(positions), dim), native byte order
        NaN where the file is quarantined.

    Raises
    ------
    UnreadableError
    """
    if file.problem is not None:
        return _unread(file, len(positions))
    return read_again(file.path, _gather_rows, file, positions)


def _gather_rows(
    file: EmbeddingFile, positions: np.ndarray, mapped_bytes: int = _GATHER_BYTES
) -> np.ndarray:
    if file.column is not None:
        return take_column_rows(file, positions)
    if is_remote(file.path) and not file.fortran_order:
        return fetch_single_rows(file, positions)
    native = np.dtype(file.dtype).newbyteorder("=")
    rows = np.empty((len(positions), file.dim), native)
    _check_size(file)
    if file.fortran_order or np.dtype(file.dtype) != native:
        step = max(1, mapped_bytes // (file.dim * native.itemsize + 4096))
        for begin in range(0, len(positions), step):
            chunk = positions[begin : begin + step]
            np.take(file.map(), chunk, axis=0, out=rows[begin : begin + step], mode="clip")
        return rows
    from dask_dedup.data.single_rows import read_each  # numba: half a second that commands spare

    row_bytes = file.dim * native.itemsize
    offsets = file.data_offset + positions * row_bytes
    try:
        with open(file.path, "rb", buffering=0) as handle:
            done = read_each(handle.fileno(), offsets, rows.view(np.uint8))
            if done < len(offsets):
                # Once more, for the reason; where there is none, the file is shorter than it was.
                os.pread(handle.fileno(), row_bytes, int(offsets[done]))
                _check_size(file)
                raise InputError(f"{file.path}: ended while it was being read.")
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror or error}).") from error
    return rows


def read_again(path: str, read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what ``read`` gives, at the third attempt at most: network disks fail now and then.

    Raises
    ------
    UnreadableError
        ``read`` has raised InputError thrice.
    """
    attempts = Retrying(
        stop=stop_after_attempt(3),
        wait=wait_exponential(0.5),
        retry=retry_if_exception_type(InputError),
        reraise=True,
    )
    try:
        return attempts(read, *arguments)
    except InputError as error:
        raise UnreadableError(str(error), path) from error


def _unread(file: EmbeddingFile, rows: int) -> np.ndarray:
    return np.full((rows, file.dim), np.nan, np.dtype(file.dtype).newbyteorder("="))


def _check_size(file: EmbeddingFile) -> None:
    """Raise InputError where a file is shorter than its header said (a map would crash)."""
    expected = file.data_offset + file.rows * file.dim * np.dtype(file.dtype).itemsize
    try:
        size_bytes = size_of(file.path)
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror or error}).") from error
    if size_bytes < expected:
        raise InputError(
            f"{file.path}: changed while it was being read; {expected} bytes expected, "
            f"{size_bytes} there."
        )
