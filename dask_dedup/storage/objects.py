"""Files that may lie in an object store: ranges, sizes, local copies, uploads, removal.

A store has no rename and no folders; putting an object is atomic. Passing errors are tried again by
the store's own client; what is left becomes a StoreError with the client's words.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np

from dask_dedup.errors import OutputError
from dask_dedup.paths import AnyPath, RemotePath, as_path, is_remote, store_errors, words_of

__all__ = [
    "OLD_PREFIX",
    "SCRATCH",
    "check_writable",
    "exists",
    "file_system",
    "is_file",
    "key_of",
    "local_copy",
    "make_folder",
    "move_folder",
    "open_parquet_source",
    "read_content",
    "read_range",
    "read_ranges",
    "read_values",
    "remove_file",
    "remove_tree",
    "scratch_beside",
    "scratch_file",
    "scratch_folder",
    "size_of",
    "upload",
    "version_of",
    "words_of",
]

SCRATCH = "dask"  # among the working files: what processes spill
OLD_PREFIX = ".replaced-"  # of a folder that another one replaces
_CACHE_BYTES = 4 << 30  # of local copies of one process
_CACHE_FILES = 32  # each is an open file
#: Stores without folders: making one would make a bucket.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}


def file_system(path: RemotePath) -> Any:
    """Return the client of a path's store."""
    return path.fs


def key_of(path: RemotePath) -> str:
    """Return the name of a path in its store."""
    return path.path


def size_of(path: str | AnyPath) -> int:
    """Return the size of a file in bytes."""
    return version_of(path)[0]


def version_of(path: str | AnyPath) -> tuple[int, str]:
    """Return size and version of a file: what changes when it is written anew."""
    path = as_path(path)
    if not is_remote(path):
        status = os.stat(path)
        return status.st_size, str(status.st_mtime_ns)
    with store_errors(path):
        info = file_system(path).info(key_of(path))
    marks = (info.get(name) for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime"))
    return int(info["size"] or 0), next((str(mark) for mark in marks if mark is not None), "")


def _in_store(name: str | AnyPath) -> RemotePath:
    path = as_path(name)
    assert is_remote(path), path
    return path


def read_range(path: str | AnyPath, start: int, stop: int) -> bytes:
    """Return the bytes ``start`` to ``stop`` of a file in a store; fewer where it ends before."""
    path = _in_store(path)
    if stop <= start:
        return b""
    with store_errors(path):
        try:
            return bytes(file_system(path).cat_file(key_of(path), start=start, end=stop))
        except OSError:
            if size_of(path) <= start:  # a range behind the end is refused
                return b""
            raise


def read_ranges(path: str | AnyPath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return several ranges of one file in a store, asked for at the same time."""
    path = _in_store(path)
    with store_errors(path):
        starts, stops = zip(*ranges, strict=True) if ranges else ((), ())
        names = [key_of(path)] * len(ranges)
        found = file_system(path).cat_ranges(names, list(starts), list(stops), on_error="raise")
    return [bytes(one) for one in found]


def read_content(path: AnyPath) -> bytes:
    """Return a whole small file, wherever it lies."""
    if not is_remote(path):
        return path.read_bytes()
    with store_errors(path):
        return bytes(file_system(path).cat_file(key_of(path)))


def read_values(path: AnyPath, dtype: Any, start: int, count: int) -> np.ndarray:
    """Return ``count`` values from position ``start`` of a file without header."""
    dtype = np.dtype(dtype)
    if not is_remote(path):
        return np.fromfile(path, dtype, count, offset=start * dtype.itemsize)
    content = read_range(path, start * dtype.itemsize, (start + count) * dtype.itemsize)
    return np.frombuffer(bytearray(content), dtype)  # a copy that may be written to


class _RangeReader(io.RawIOBase):
    """A file in a store as pyarrow reads it: every read is one range."""

    def __init__(self, path: RemotePath) -> None:
        self._path, self._size, self._position = path, size_of(path), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        content = read_range(self._path, self._position, stop)
        self._position += len(content)
        return content

    def readall(self) -> bytes:
        return self.read()


def open_parquet_source(path: str | AnyPath) -> Any:
    """Return what pyarrow opens for a parquet file: its path, or a reader of ranges."""
    path = as_path(path)
    return _RangeReader(path) if is_remote(path) else path


def upload(source: Path, target: RemotePath) -> None:
    """Put a local file into a store, whole or not at all."""
    with store_errors(target):
        system, key = file_system(target), key_of(target)
        if not _OBJECT_STORES & set(_protocols(system)):
            system.makedirs(key.rpartition("/")[0], exist_ok=True)
        system.put_file(str(source), key)


def exists(path: AnyPath) -> bool:
    """Return whether there is such a file or folder."""
    with store_errors(path):
        return path.exists()


def is_file(path: AnyPath) -> bool:
    """Return whether there is such a file."""
    with store_errors(path):
        return path.is_file()


def remove_file(path: AnyPath) -> None:
    """Remove a file, if it is there."""
    with store_errors(path):
        path.unlink(missing_ok=True)


def move_folder(
    source: AnyPath, target: AnyPath, keep: bool = False, check: Callable[[], None] | None = None
) -> None:
    """Move a folder to another path; what is there already is replaced, or kept beside it.

    By renaming, where both are on one disk. Otherwise file by file: meanwhile whoever reads
    ``target`` finds some of them, and ``check`` is called before each: it may raise.
    """
    if not is_remote(source) and not is_remote(target):
        if keep:
            shutil.copytree(source, target, copy_function=shutil.move, dirs_exist_ok=True)
            shutil.rmtree(source)
            return
        if source.stat().st_dev != _existing_parent(target).stat().st_dev:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, copy_function=_copy_durably)
            shutil.rmtree(source)
            return
        # The old one makes room by renaming: there is one or the other but for an instant.
        old = target.with_name(f"{OLD_PREFIX}{target.name}")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        source.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        return
    if not keep:
        remove_tree(target)
    for path in sorted((path for path in source.rglob("*") if path.is_file()), key=str):
        if check is not None:
            check()
        name = str(path).removeprefix(str(source)).lstrip("/")
        moved = target / name
        if is_remote(path) and is_remote(moved):
            with store_errors(target):
                file_system(moved).copy(key_of(path), key_of(moved))
        elif is_remote(path):
            make_folder(moved.parent)
            with store_errors(path):
                file_system(path).get_file(key_of(path), str(moved))
        elif is_remote(moved):
            upload(path, moved)
    remove_tree(source)


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def _copy_durably(source: str, target: str) -> None:
    """Copy a file, and return once it has reached the disk."""
    shutil.copy2(source, target)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def make_folder(folder: AnyPath) -> None:
    """Make a folder where there are folders."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_writable(folder: AnyPath) -> None:
    """Refuse a local folder that nothing can be written to; leaves nothing there.

    Raises
    ------
    OutputError
    """
    if is_remote(folder):
        return
    above = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({words_of(error)}).") from error


def remove_tree(folder: AnyPath) -> None:
    """Remove a folder and all that is in it, if it is there."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with store_errors(folder):
        try:
            file_system(folder).rm(key_of(folder), recursive=True)
        except FileNotFoundError:
            return


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def scratch_folder() -> str:
    """Return the folder for temporary files of this process: ``TMPDIR``, or the system's."""
    return os.environ.get("TMPDIR") or tempfile.gettempdir()


@contextmanager
def scratch_beside(folder: AnyPath) -> Iterator[Path]:
    """Give a local folder for the files of processes: below ``folder``, if that is local."""
    if not is_remote(folder):
        yield folder / SCRATCH
        return
    with tempfile.TemporaryDirectory(
        prefix="dask-dedup-", dir=scratch_folder(), ignore_cleanup_errors=True
    ) as made:
        yield Path(made)


@contextmanager
def scratch_file() -> Iterator[Path]:
    """Give an empty local file without a name, below `scratch_folder`.

    It is gone when the block or the process ends, however that ends: its path leads through a file
    that this process holds open, and means nothing to another.
    """
    with tempfile.TemporaryFile(dir=scratch_folder()) as file:
        yield _path_of(file)


def _path_of(file: IO[bytes]) -> Path:
    return Path(f"/proc/self/fd/{file.fileno()}")


class _Copies:
    """Copies of files of a store on this machine, the oldest removed first.

    They have no name, see `scratch_file`: of a worker that is killed nothing is left.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._copies: OrderedDict[tuple[str, str], tuple[IO[bytes], int]] = OrderedDict()
        self._process = os.getpid()

    def get(self, path: RemotePath) -> Path:
        size, version = version_of(path)
        key = (str(path), version)
        with self._lock:
            if self._process != os.getpid():  # a fork would share the copies' files
                self._process = os.getpid()
                self._copies.clear()
            if key not in self._copies:
                copy = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115  stays open
                with store_errors(path):
                    file_system(path).get_file(key_of(path), str(_path_of(copy)))
                self._copies[key] = copy, size
            self._copies.move_to_end(key)
            while len(self._copies) > 1 and (
                len(self._copies) > _CACHE_FILES
                or sum(size for _, size in self._copies.values()) > _CACHE_BYTES
            ):
                _, (oldest, _) = self._copies.popitem(last=False)
                oldest.close()  # whoever has mapped it keeps it
            return _path_of(self._copies[key][0])


_COPIES = _Copies()


def local_copy(path: str | AnyPath) -> Path:
    """Return a local path with the content of a file: its own, or that of a copy.

    For what is mapped into memory or read by libraries that know no stores; to be opened at once,
    by this process. Each process keeps up to 32 copies, of 4 GB together, until it ends.
    """
    path = as_path(path)
    return _COPIES.get(path) if is_remote(path) else path
