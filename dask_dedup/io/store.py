"""Outputs of stages: written aside, renamed, described by a manifest.

A stage owns one folder. Its manifest is written first as unfinished (so that a later run can tell
what the files in the folder belong to) and again once all tasks are done. A task leaves a record, a
small JSON file written last; a stage that is run again keeps what has a record and runs the rest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dask.delayed import delayed

from dask_dedup.errors import CapacityError, StoreError
from dask_dedup.io.objects import (
    local_copy,
    make_folder,
    open_parquet_source,
    read_content,
    remove_tree,
    scratch_file,
    scratch_folder,
    upload,
    version_of,
)
from dask_dedup.places import as_place, is_remote
from dask_dedup.tasks import Execute, OnResult

__all__ = [
    "MANIFEST",
    "RECORD",
    "Stage",
    "digest_of",
    "open_once",
    "read_arrays",
    "read_frame",
    "read_json",
    "write_arrays",
    "write_aside",
    "write_frame",
    "write_json",
]

Opened = TypeVar("Opened")

MANIFEST = "manifest.json"
RECORD = ".done.json"  # what the name of a task's record ends with
_TEMPORARY_PREFIX = ".unfinished-"
_LAST_BYTES = 1 << 16  # a disk with less is full


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Give a temporary local name; what is written there becomes ``path`` when the block succeeds.

    By renaming, where ``path`` is local; a file for an object store is put there as a whole.

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
            temporary = folder / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}"
            stack.callback(temporary.unlink, missing_ok=True)
        try:
            yield temporary
            if is_remote(path):
                upload(temporary, path)
            else:
                os.replace(temporary, path)
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
    return shutil.disk_usage(folder).free < _LAST_BYTES


def write_json(path: Path, content: Any) -> None:
    """Write JSON, complete or not at all."""
    with write_aside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any | None:
    """Return the content of a JSON file; None where it is missing or damaged."""
    try:
        return json.loads(read_content(path))
    except StoreError:  # which says nothing about the file
        raise
    except (OSError, ValueError):
        return None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays by name as ``.npz``, complete or not at all."""
    with write_aside(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return what `write_arrays` wrote."""
    with np.load(local_copy(path), allow_pickle=False) as saved:
        return dict(saved)


def read_frame(path: Path) -> pd.DataFrame:
    """Return the content of one parquet file."""
    return pd.read_parquet(open_parquet_source(path))


def write_frame(
    path: Path, table: pa.Table | pd.DataFrame, notes: Mapping[str, str] | None = None
) -> None:
    """Write one parquet file, complete or not at all; no pandas index, no pandas notes.

    ``notes`` become the metadata of the file's schema.
    """
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with write_aside(path) as temporary:
        table = table.replace_schema_metadata(dict(notes) if notes else None)
        pq.write_table(table, temporary, compression="zstd")


def open_once(read: Callable[[Path], Opened], path: str | Path) -> Opened:
    """Return what ``read`` makes of a file: tasks carry paths, and a worker reads each file once.

    A file that was written anew is read anew. Eight are kept.
    """
    place = as_place(path)
    number = 0 if is_remote(place) else os.stat(place).st_ino
    return _read_version(read, place, version_of(place), number)


@lru_cache(maxsize=8)
def _read_version(
    read: Callable[[Path], Opened], path: Path, version: tuple[int, str], number: int
) -> Opened:
    return read(path)


def digest_of(settings: Mapping[str, Any]) -> str:
    """Hex digest of settings that JSON can express, whatever the order of the keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Stage:
    """The output folder of one stage.

    Attributes
    ----------
    folder : Path
    settings : mapping
        Everything that the stage's output depends on, the input's fingerprint included.
    """

    folder: Path
    settings: Mapping[str, Any]

    def run(
        self,
        function: Callable[..., Mapping[str, int]],
        tasks: Mapping[str, tuple],
        execute: Execute,
        on_result: OnResult,
    ) -> list[dict[str, Any]]:
        """Run the tasks that have no record yet, and declare the stage finished.

        Parameters
        ----------
        function : callable
            Does one task and returns what is to be recorded of it (JSON).
        tasks : mapping
            Name of each task to the function's arguments; begun in this order.
        execute : Execute
        on_result : callable
            Called with each record, old and new.

        Returns
        -------
        list of dict
            The records, in the order of the tasks.
        """
        self.prepare()
        self._write_manifest(finished=False, tasks=len(tasks))
        records = {name: read_json(self._record_path(name)) for name in tasks}
        missing = [name for name, record in records.items() if record is None]
        for record in records.values():
            if record is not None:
                on_result(record)
        run = uuid.uuid4().hex  # Dask takes tasks of equal names for the same one
        waiting = []
        for place, name in enumerate(missing):
            with dask.annotate(priority=-place):  # Dask's own order is the reverse
                waiting.append(
                    delayed(_run_and_record)(
                        function,
                        str(self._record_path(name)),
                        *tasks[name],
                        dask_key_name=f"{self.folder.name}-{name}-{run}",
                    )
                )
        new = execute(waiting, on_result)
        records.update(zip(missing, new, strict=True))
        self._remove_leftovers()
        self._write_manifest(finished=True, tasks=len(tasks))
        return [dict(records[name] or {}) for name in tasks]

    def prepare(self) -> None:
        """Make the folder ready: files that belong to other settings are removed."""
        manifest = read_json(self.folder / MANIFEST)
        if manifest is None or manifest.get("digest") != self.digest:
            remove_tree(self.folder)
        make_folder(self.folder)
        self._remove_leftovers()
        if manifest is None or manifest.get("digest") != self.digest:
            self._write_manifest(finished=False)

    @property
    def digest(self) -> str:
        """Digest of the settings."""
        return digest_of(self.settings)

    def _record_path(self, name: str) -> Path:
        return self.folder / f"{name}{RECORD}"

    def _remove_leftovers(self) -> None:
        """Remove what a killed process was writing, subfolders included."""
        if is_remote(self.folder):  # unfinished files are on the machines of their tasks
            return
        for leftover in self.folder.rglob(f"{_TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)

    def _write_manifest(self, finished: bool, tasks: int | None = None) -> None:
        write_json(
            self.folder / MANIFEST,
            {
                "digest": self.digest,
                "finished": finished,
                "tasks": tasks,
                "settings": dict(self.settings),
            },
        )


def _run_and_record(function: Callable, record_path: str, *arguments: Any) -> dict[str, Any]:
    """Do one task, then record what it returned."""
    record = dict(function(*arguments))
    write_json(as_place(record_path), record)
    return record
