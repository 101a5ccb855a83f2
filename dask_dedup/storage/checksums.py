"""What a file was when it was written: its size, and the CRC-32 of its tail.

Whoever writes a file notes its `FileDigest`; whoever takes the file for whole compares it.
The tail holds what describes the rest: the footer of a parquet file, the trailer of a sealed one.
The rest carries checksums of its own, of each page or block, which are verified when they are read.
Files of other kinds, which are small, are tail from end to end. So a look at a file of gigabytes
reads some kilobytes.
"""

from __future__ import annotations

import errno
import json
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import DamagedError, StoreError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.objects import open_parquet_source, read_range, size_of

__all__ = [
    "FileDigest",
    "check_file",
    "check_pages",
    "damage",
    "digest_of_file",
    "find_damage",
    "note_file",
    "noted_files",
    "seal_json",
    "unseal_json",
]

_TAIL_BYTES = 1 << 16  # of a sealed file: more than its trailer's own description
_SEALED = (".bin",)  # raw values with a checksum of each block
_READ_BYTES = 1 << 20
_LOOK_THREADS = 16  # files that are looked at together, mostly waiting
_CHECKSUM = "checksum"  # key of a JSON file


class FileDigest(NamedTuple):
    """``size`` in bytes; ``crc32`` of the last ``tail`` bytes."""

    size: int
    tail: int
    crc32: int


def digest_of_file(path: AnyPath, name: str | None = None) -> FileDigest:
    """Return the digest of a file that has just been written.

    Parameters
    ----------
    path : AnyPath
    name : str, optional
        What it will be called, where ``path`` is a temporary name: its suffix decides which bytes
        are the tail.
    """
    size = size_of(path)
    suffix = Path(name or path.name).suffix
    tail = size
    if suffix == ".parquet" and size >= 12:  # the footer's length stands before the last magic
        tail = min(size, 8 + int.from_bytes(_read(path, size - 8, 4), "little"))
    elif suffix in _SEALED:
        tail = min(size, _TAIL_BYTES)
    return FileDigest(size, tail, _crc32_of_tail(path, size, tail))


def check_file(path: AnyPath, digest: FileDigest) -> None:
    """Raise DamagedError where a file is not what it was when it was written."""
    try:
        size = size_of(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: is missing.", str(path)) from error
    if size != digest.size:
        raise DamagedError(f"{path}: has {size:,} bytes, {digest.size:,} were written.", str(path))
    if _crc32_of_tail(path, size, digest.tail) != digest.crc32:
        raise DamagedError(f"{path}: is damaged: its checksum is another.", str(path))


def check_pages(path: AnyPath) -> None:
    """Raise DamagedError where a page of a parquet file is not what was written; reads it all."""
    with (
        damage(path),
        pq.ParquetFile(open_parquet_source(path), page_checksum_verification=True) as file,
    ):
        for _ in file.iter_batches(use_threads=False):
            pass


def find_damage(
    files: Mapping[AnyPath, Sequence[int]], pages: Container[AnyPath] = ()
) -> list[DamagedError]:
    """Return what is wrong with some files, in their order.

    Parameters
    ----------
    files : mapping
        Paths, and `FileDigest` of each.
    pages : container of AnyPath
        Parquet files that are read from end to end, too.
    """

    def look(path: AnyPath) -> DamagedError | None:
        try:
            check_file(path, FileDigest(*files[path]))
            if path in pages and path.suffix == ".parquet":
                check_pages(path)
        except DamagedError as error:
            return error
        return None

    with ThreadPoolExecutor(_LOOK_THREADS) as pool:
        return [error for error in pool.map(look, files) if error is not None]


@contextmanager
def noted_files() -> Iterator[dict[str, FileDigest]]:
    """Collect path and digest of each file that this thread writes until the block ends."""
    noted: dict[str, FileDigest] = {}
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


def note_file(target: AnyPath, digest: FileDigest) -> None:
    """Note a file that was written, for whoever collects: see `noted_files`."""
    noted = _NOTED.get()
    if noted is not None:
        noted[str(target)] = digest


_NOTED: ContextVar[dict[str, FileDigest] | None] = ContextVar("noted_files", default=None)


@contextmanager
def damage(path: str | AnyPath) -> Iterator[None]:
    """Turn what readers say of a damaged or missing file into DamagedError.

    A disk or a store that fails, and too many open files, say nothing about the file.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: is missing.", str(path)) from error
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        said = " ".join(str(error).split())
        raise DamagedError(f"{path}: is damaged ({said}).", str(path)) from error


def seal_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON content with its checksum."""
    return {**content, _CHECKSUM: _checksum_of(content)}


def unseal_json(content: Any, sealed: bool = False) -> Any:
    """Return what `seal_json` was given, or None where that has changed since.

    What has no checksum comes from elsewhere: it is returned as it is, or None where it has to be
    ``sealed``.
    """
    if not isinstance(content, dict) or _CHECKSUM not in content:
        return None if sealed else content
    checksum = content.pop(_CHECKSUM)
    return content if checksum == _checksum_of(content) else None


def _checksum_of(content: Mapping[str, Any]) -> str:
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return f"crc32:{zlib.crc32(text.encode()):08x}"


def _crc32_of_tail(path: AnyPath, size: int, tail: int) -> int:
    crc = 0
    for start in range(size - tail, size, _READ_BYTES):
        crc = zlib.crc32(_read(path, start, min(_READ_BYTES, size - start)), crc)
    return crc


def _read(path: AnyPath, start: int, count: int) -> bytes:
    if is_remote(path):
        return read_range(path, start, start + count)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(count)
