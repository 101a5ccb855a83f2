"""Files that we write and read back: complete or absent, each with a checksum.

Written under another name and renamed; read so that damage is found: parquet by the checksums of
its pages, arrays and JSON by one of their own. What is damaged or missing raises DamagedError.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dask_dedup.errors import CapacityError, StoreError
from dask_dedup.paths import AnyPath, as_path, is_remote
from dask_dedup.storage.checksums import damage, digest_of_file, note_file, seal_json, unseal_json
from dask_dedup.storage.objects import (
    local_copy,
    open_parquet_source,
    read_content,
    scratch_file,
    scratch_folder,
    upload,
    version_of,
)

__all__ = [
    "TEMPORARY_PREFIX",
    "digest_of",
    "open_once",
    "read_arrays",
    "read_frame",
    "read_json",
    "read_noted_arrays",
    "sync",
    "write_arrays",
    "write_aside",
    "write_frame",
    "write_json",
]

Opened = TypeVar("Opened")

TEMPORARY_PREFIX = ".unfinished-"
_LAST_BYTES = 1 << 16  # a disk with less is full
_CHECKSUM = "checksum"  # note of a file of arrays


@contextmanager
def write_aside(path: AnyPath, durable: bool = False) -> Iterator[Path]:
    """Give a temporary local name; what is written there becomes ``path`` when the block succeeds.

    By renaming, where ``path`` is local; a file for an object store is put there as a whole.
    ``durable``: it has reached the disk before it gets its name.

    Raises
    ------
    CapacityError
        The disk is full: whatever has failed then, it was for that.
    """
    with ExitStack() as stack:
        if is_remote(path):
            folder = Path(scratch_folder())
            temporary = stack.enter_context(scratch_file())
        else:
            folder = path.parent
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}"
            stack.callback(temporary.unlink, missing_ok=True)
        try:
            yield temporary
            digest = digest_of_file(temporary, path.name)
            if is_remote(path):
                upload(temporary, path)
            else:
                if durable:
                    sync(temporary)
                os.replace(temporary, path)
            note_file(path, digest)
        except Exception as error:
            if is_full(folder, error):
                raise CapacityError(
                    f"{path}: the disk of {folder} is full. Make room there; the same command "
                    f"continues where this stopped."
                ) from error
            raise


def is_full(folder: Path, error: Exception) -> bool:
    """Return whether an error is for want of disk; many writers say so in their own words."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    usage = shutil.disk_usage(folder)
    return usage.free < _LAST_BYTES and usage.total > 0  # /proc is no disk


def sync(path: Path) -> None:
    """Return once a local file, or the names in a local folder, have reached the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_json(path: AnyPath, content: Any, durable: bool = False, sealed: bool = True) -> None:
    """Write JSON, complete or not at all; a mapping with its checksum, where it is ``sealed``."""
    if sealed and isinstance(content, Mapping):
        content = seal_json(content)
    with write_aside(path, durable) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: AnyPath, sealed: bool = False) -> Any | None:
    """Return the content of a JSON file; None where it is missing or damaged.

    ``sealed``: also where it has no checksum, and so is not of `write_json`.
    """
    try:
        return unseal_json(json.loads(read_content(path)), sealed)
    except StoreError:  # which says nothing about the file
        raise
    except (OSError, ValueError):
        return None


def write_arrays(
    path: AnyPath, notes: Mapping[str, str] | None = None, **arrays: np.ndarray
) -> None:
    """Write arrays by name as safetensors, complete or not at all.

    ``notes`` and a checksum of everything go into the header.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    notes = dict(notes or {})
    with write_aside(path) as temporary:
        # Not `save_file`, which renames: a file for a store has no name.
        temporary.write_bytes(save(whole, {**notes, _CHECKSUM: _checksum_of(whole, notes)}))


def read_arrays(path: str | AnyPath) -> dict[str, np.ndarray]:
    """Return what `write_arrays` wrote; DamagedError where it is something else."""
    return read_noted_arrays(path)[0]


def read_noted_arrays(path: str | AnyPath) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the notes that `write_arrays` wrote.

    Raises
    ------
    DamagedError
    """
    with damage(path):
        try:
            with safe_open(local_copy(path), framework="numpy") as file:
                notes = dict(file.metadata() or {})
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        if notes.pop(_CHECKSUM, None) != _checksum_of(arrays, notes):
            raise ValueError("its checksum is another")
    return arrays, notes


def read_frame(path: AnyPath, first_columns: int | None = None) -> pd.DataFrame:
    """Return the content of one parquet file that we wrote, or its first columns.

    The user's columns stand behind ours, and notes of theirs say nothing about ours.

    Raises
    ------
    DamagedError
        It is missing, or not what was written.
    """
    with (
        damage(path),
        pq.ParquetFile(open_parquet_source(path), page_checksum_verification=True) as file,
    ):
        names = None if first_columns is None else file.schema_arrow.names[:first_columns]
        return file.read(names).to_pandas(ignore_metadata=True)


def write_frame(
    path: AnyPath,
    table: pa.Table | pd.DataFrame,
    notes: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    durable: bool = False,
) -> None:
    """Write one parquet file, complete or not at all; no pandas index, no pandas notes.

    ``notes`` become the metadata of the file's schema; ``durable`` as in `write_aside`.
    """
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    table = table.replace_schema_metadata(dict(notes) if notes else None)
    with write_aside(path, durable) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def replace_tables(
    folder: AnyPath, tables: Mapping[str, pd.DataFrame], before: Callable[[], None]
) -> None:
    """Write tables by the names of their files, ``.parquet`` or ``.csv``: all of them or none.

    What is there stays until all are written aside. ``before`` is called then, before the first of
    them gets its name.
    """
    with ExitStack() as stack:
        for name, table in tables.items():
            temporary = stack.enter_context(write_aside(folder / name))
            if name.endswith(".csv"):
                table.to_csv(temporary, index=False)
            else:
                plain = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata()
                pq.write_table(plain, temporary, compression="zstd", write_page_checksum=True)
        before()


def open_once(read: Callable[[AnyPath], Opened], path: str | AnyPath) -> Opened:
    """Return what ``read`` makes of a file: tasks carry paths, and a worker reads each file once.

    A file that was written anew is read anew. Eight are kept.
    """
    target = as_path(path)
    number = 0 if is_remote(target) else os.stat(target).st_ino
    return _read_version(read, target, version_of(target), number)


@lru_cache(maxsize=8)
def _read_version(
    read: Callable[[AnyPath], Opened], path: AnyPath, version: tuple[int, str], number: int
) -> Opened:
    return read(path)


def digest_of(settings: Mapping[str, Any]) -> str:
    """Hex digest of settings that JSON can express, whatever the order of the keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _checksum_of(arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> str:
    """Return a checksum of names, types, shapes, values and notes."""
    headers = [(name, a.dtype.str, a.shape) for name, a in sorted(arrays.items())]
    crc = zlib.crc32(json.dumps([headers, sorted(notes.items())]).encode())
    for _, array in sorted(arrays.items()):
        crc = zlib.crc32(array.data.cast("B") if array.size else b"", crc)
    return f"crc32:{crc:08x}"
