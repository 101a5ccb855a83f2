"""Raw values in a file whose damage is found: rows of one dtype, a checksum per block.

A head of 64 bytes (what the rows are, how many, a checksum of itself), then blocks of whole rows,
each with four bytes of CRC-32 behind it. A range of rows is one range of the file, checksums
included, so that a reader needs no table of them, which of a file of many gigabytes would be larger
than the range. Each checksum starts from its block's number: a block that stands where another
belongs is found.

zlib's CRC-32 goes over 1 to 4 GB a second and core, by the build of zlib.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np

from dask_dedup.errors import DamagedError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import read_range

__all__ = ["SealedWriter", "read_sealed", "sealed_rows", "write_sealed", "writing_sealed"]

_MAGIC = b"ddsealed"
_VERSION = 1
_BLOCK_BYTES = 1 << 16
_HEAD_BYTES = 64
_HEAD = struct.Struct("<8s I 8s I Q")  # magic, version, dtype, values a row, rows
_SUM_BYTES = 4
_WRITE_BYTES = 8 << 20  # put together for one call of the system


class _Shape(NamedTuple):
    """How rows lie in a file."""

    row_bytes: int
    rows: int

    @property
    def block_rows(self) -> int:
        return max(1, _BLOCK_BYTES // self.row_bytes)

    @property
    def stride(self) -> int:
        """Bytes of a block and its checksum."""
        return self.block_rows * self.row_bytes + _SUM_BYTES

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        blocks = -(-self.rows // self.block_rows)
        return _HEAD_BYTES + self.rows * self.row_bytes + blocks * _SUM_BYTES


class SealedWriter:
    """Takes rows piece by piece; made by `writing_sealed`.

    Attributes
    ----------
    rows : int
        That have been taken.
    """

    def __init__(self, file: BinaryIO, dtype: np.dtype, width: int) -> None:
        self._file, self._dtype, self._width = file, dtype, width
        self._shape = _Shape(dtype.itemsize * width, 0)
        self._rest = np.empty((0, width), dtype)
        self._block = 0
        self.rows = 0
        file.write(bytes(_HEAD_BYTES))

    def add(self, rows: np.ndarray) -> None:
        """Take rows: shape (n, width), or (n,) where the width is 1."""
        rows = np.ascontiguousarray(rows, self._dtype).reshape(-1, self._width)
        self.rows += len(rows)
        block_rows = self._shape.block_rows
        if len(self._rest):
            missing = block_rows - len(self._rest)
            self._rest = np.concatenate([self._rest, rows[:missing]])
            rows = rows[missing:]
            if len(self._rest) < block_rows:
                return
            self._write(self._rest)
        whole = len(rows) - len(rows) % block_rows
        step = block_rows * max(1, _WRITE_BYTES // self._shape.stride)
        for start in range(0, whole, step):
            self._write(rows[start : min(start + step, whole)])
        self._rest = rows[whole:].copy()

    def finish(self) -> None:
        """Write what is left, and the head."""
        self._write(self._rest)
        dtype = self._dtype.str.encode().ljust(8)
        head = _HEAD.pack(_MAGIC, _VERSION, dtype, self._width, self.rows)
        head = head.ljust(_HEAD_BYTES - _SUM_BYTES, b"\0")
        self._file.seek(0)
        self._file.write(head + zlib.crc32(head).to_bytes(_SUM_BYTES, "little"))

    def _write(self, rows: np.ndarray) -> None:
        """Write whole blocks, or the last one."""
        block_rows = self._shape.block_rows
        pieces: list[bytes | memoryview] = []
        for start in range(0, len(rows), block_rows):
            block = rows[start : start + block_rows].data.cast("B")
            pieces += [block, _sum_of(block, self._block).to_bytes(_SUM_BYTES, "little")]
            self._block += 1
        self._file.write(b"".join(pieces))


@contextmanager
def writing_sealed(path: AnyPath, dtype: np.dtype, width: int = 1) -> Iterator[SealedWriter]:
    """Give a writer of rows of ``width`` values; the file is there when the block succeeds."""
    with write_aside(path) as temporary, open(temporary, "wb", buffering=0) as file:
        writer = SealedWriter(file, dtype, width)
        yield writer
        writer.finish()


def write_sealed(path: AnyPath, rows: np.ndarray) -> None:
    """Write an array of one or two dimensions, complete or not at all."""
    with writing_sealed(path, rows.dtype, 1 if rows.ndim == 1 else rows.shape[1]) as writer:
        writer.add(rows)


def sealed_rows(path: AnyPath, dtype: np.dtype, width: int = 1) -> int:
    """Return how many rows a file has, by its head.

    Raises
    ------
    DamagedError
        The file is missing, its size is another, or its rows are of another kind.
    """
    with _reading(path) as read:
        return _read_shape(path, read, dtype, width).rows


def read_sealed(
    path: AnyPath, dtype: np.dtype, width: int, start: int, count: int, rows: int | None = None
) -> np.ndarray:
    """Read rows ``start`` to ``start + count``, and check every block that they touch.

    Parameters
    ----------
    path : AnyPath
        Local, or in an object store.
    dtype, width
        Of the rows.
    rows : int, optional
        How many rows the file has, where that is known: it must be so, and a file in a store is
        then read in one request instead of two.

    Returns
    -------
    array, shape (count, width)

    Raises
    ------
    DamagedError
        The file is missing, too short, of another kind, or its content is not what was written.
    """
    with _reading(path) as read:
        if rows is not None and is_remote(path):
            shape = _Shape(dtype.itemsize * width, rows)
        else:
            shape = _read_shape(path, read, dtype, width)
            if rows is not None and shape.rows != rows:
                raise DamagedError(f"{path}: has {shape.rows} rows instead of {rows}.", str(path))
        if not 0 <= start <= start + count <= shape.rows:
            raise DamagedError(
                f"{path}: has {shape.rows} rows, and was asked for {start} to {start + count}.",
                str(path),
            )
        if not count:
            return np.empty((0, width), dtype)
        first, last = start // shape.block_rows, (start + count - 1) // shape.block_rows
        end = min(shape.size_bytes, _HEAD_BYTES + (last + 1) * shape.stride)
        content = read(_HEAD_BYTES + first * shape.stride, end)
    return _checked(path, content, first, shape, dtype, width)[start - first * shape.block_rows :][
        :count
    ]


def _checked(
    path: AnyPath, content: bytearray, first: int, shape: _Shape, dtype: np.dtype, width: int
) -> np.ndarray:
    """Return the rows of some blocks without their checksums, each block checked."""
    view, stride = memoryview(content), shape.stride
    blocks = -(-len(content) // stride)
    for number in range(blocks):
        stop = min((number + 1) * stride, len(content)) - _SUM_BYTES
        expected = int.from_bytes(view[stop : stop + _SUM_BYTES], "little")
        if _sum_of(view[number * stride : stop], first + number) != expected:
            raise DamagedError(
                f"{path}: block {first + number} is not what was written: its checksum is wrong.",
                str(path),
            )
    payload = stride - _SUM_BYTES
    whole = len(content) // stride
    rows = np.empty((len(content) - blocks * _SUM_BYTES) // shape.row_bytes * width, dtype)
    target = rows.view(np.uint8)
    source = np.frombuffer(content, np.uint8)
    body = source[: whole * stride].reshape(whole, stride)[:, :payload]
    target[: whole * payload].reshape(whole, payload)[:] = body
    target[whole * payload :] = source[whole * stride : len(content) - _SUM_BYTES][
        : len(target) - whole * payload
    ]
    return rows.reshape(-1, width)


def _sum_of(block: memoryview, number: int) -> int:
    return zlib.crc32(block, number & 0xFFFFFFFF)


class _Reader:
    """Reads ranges of one open file, or of one in a store."""

    def __init__(self, path: AnyPath, number: int | None) -> None:
        self.path, self._number = path, number

    @property
    def size_bytes(self) -> int | None:
        """None in a store, where it would be one more request: what is short is found in time."""
        return None if self._number is None else os.fstat(self._number).st_size

    def __call__(self, start: int, stop: int) -> bytearray:
        """Return the bytes from ``start`` to ``stop``."""
        if self._number is None:
            content = bytearray(read_range(self.path, start, stop))
            filled = len(content)
        else:
            content = bytearray(stop - start)
            filled, view = 0, memoryview(content)
            while filled < len(content):
                got = os.preadv(self._number, [view[filled:]], start + filled)
                if not got:
                    break
                filled += got
        if filled < stop - start:
            raise DamagedError(
                f"{self.path}: ends at byte {start + filled}; {stop} were expected.",
                str(self.path),
            )
        return content


@contextmanager
def _reading(path: AnyPath) -> Iterator[_Reader]:
    """Open a file for reading ranges."""
    try:
        if is_remote(path):
            yield _Reader(path, None)
            return
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield _Reader(path, number)
        finally:
            os.close(number)
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: is missing.", str(path)) from error


def _read_shape(path: AnyPath, read: _Reader, dtype: np.dtype, width: int) -> _Shape:
    """Read and check the head: nothing is believed that its checksum does not cover."""
    head = bytes(read(0, _HEAD_BYTES))
    body, expected = head[:-_SUM_BYTES], int.from_bytes(head[-_SUM_BYTES:], "little")
    magic, version, kind, values, rows = _HEAD.unpack(body[: _HEAD.size])
    if magic != _MAGIC or version != _VERSION or zlib.crc32(body) != expected:
        raise DamagedError(f"{path}: its head is not what was written.", str(path))
    if (kind.strip().decode(), values) != (dtype.str, width):
        raise DamagedError(
            f"{path}: holds rows of {values} {kind.strip().decode()} instead of {width} "
            f"{dtype.str}.",
            str(path),
        )
    shape = _Shape(dtype.itemsize * width, rows)
    if read.size_bytes not in (None, shape.size_bytes):
        raise DamagedError(
            f"{path}: has {read.size_bytes} bytes; its {rows} rows take {shape.size_bytes}.",
            str(path),
        )
    return shape
