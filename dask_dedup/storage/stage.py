"""The output of one stage: tasks that leave records, in a folder described by a manifest.

A stage owns one folder. Its manifest is written first as unfinished (so that a later run knows
what the files in the folder belong to) and again once all tasks are done. A task leaves a record, a
small JSON file written last, with the digest of every file that the task has written. A stage that
is run again keeps what has a record and whose files are whole, and runs the rest.

To look at the files of a record costs one small read a file; those that will be results, and are
read by no later stage, are read from end to end.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dask
from dask.delayed import delayed

from dask_dedup.paths import AnyPath, as_path, is_remote
from dask_dedup.runtime.executor import Execute, OnResult
from dask_dedup.storage.checksums import FileDigest, digest_of_file, find_damage, noted_files
from dask_dedup.storage.files import TEMPORARY_PREFIX, digest_of, read_json, write_json
from dask_dedup.storage.objects import exists, make_folder, remove_file, remove_tree

__all__ = [
    "FILES",
    "MANIFEST",
    "RECORD",
    "TRAINED",
    "IsPublished",
    "Stage",
    "files_of_note",
    "forget_file",
    "read_note",
    "write_note",
]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TRAINED = "trained.json"  # the note of the models that a stage begins with
RECORD = ".done.json"  # what the name of a task's record ends with
FILES = "files"  # in a record: the digest of each file, by its path below the stage's folder

#: Whether a file of a stage, by its path below the stage's folder, has become a result.
IsPublished = Callable[[str, FileDigest], bool]


def _is_nowhere_else(name: str, digest: FileDigest) -> bool:
    return False


@dataclass(frozen=True)
class Stage:
    """The output folder of one stage.

    Attributes
    ----------
    folder : AnyPath
    settings : mapping
        Everything that the stage's output depends on, the input's fingerprint included.
    is_published : callable, optional
        A file that is missing here does not count as lost where this is true of it.
    """

    folder: AnyPath
    settings: Mapping[str, Any]
    is_published: IsPublished = field(default=_is_nowhere_else, compare=False)

    def run(
        self,
        function: Callable[..., Mapping[str, int]],
        tasks: Mapping[str, tuple],
        execute: Execute,
        on_result: OnResult,
        on_resumed: OnResult | None = None,
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
            Called with each new record.
        on_resumed : callable, optional
            Called with each record of an earlier start; by default ``on_result`` is.

        Returns
        -------
        list of dict
            The records, in the order of the tasks, each with the files of its task.
        """
        self.prepare()
        self._write_manifest(finished=False, tasks=len(tasks))
        records = self._whole_records(tasks)
        missing = [name for name in tasks if name not in records]
        for record in records.values():
            (on_resumed or on_result)(record)
        run = uuid.uuid4().hex  # Dask takes tasks of equal names for the same one
        waiting = []
        for position, name in enumerate(missing):
            with dask.annotate(priority=-position):  # Dask's own order is the reverse
                waiting.append(
                    delayed(_run_and_record)(
                        function,
                        str(self.folder),
                        str(self._record_path(name)),
                        *tasks[name],
                        dask_key_name=f"{self.folder.name}-{name}-{run}",
                    )
                )
        new = execute(waiting, on_result)
        records.update(zip(missing, new, strict=True))
        self._remove_leftovers()
        self._write_manifest(finished=True, tasks=len(tasks))
        return [dict(records[name]) for name in tasks]

    def prepare(self) -> None:
        """Make the folder ready: files that belong to other settings are removed."""
        manifest = read_json(self.folder / MANIFEST)
        if manifest is None or manifest.get("digest") != self.digest:
            remove_tree(self.folder)
        make_folder(self.folder)
        self._remove_leftovers()
        if manifest is None or manifest.get("digest") != self.digest:
            self._write_manifest(finished=False)

    def declare(self) -> None:
        """Note that the folder is of these settings, and unfinished; what is in it stays."""
        make_folder(self.folder)
        self._write_manifest(finished=False)

    @property
    def digest(self) -> str:
        """Digest of the settings."""
        return digest_of(self.settings)

    def forget(self) -> None:
        """Forget what has been done: every task will run again."""
        for path in self.folder.glob(f"*{RECORD}"):
            remove_file(path)

    def _whole_records(self, tasks: Mapping[str, tuple]) -> dict[str, dict[str, Any]]:
        """Return the records of tasks whose files are as they were written."""
        found = {name: read_json(self._record_path(name)) for name in tasks}
        records = {name: dict(one) for name, one in found.items() if one and FILES in one}
        owners = {
            self.folder / path: (name, path, FileDigest(*digest))
            for name, record in records.items()
            for path, digest in record[FILES].items()
        }
        errors = [
            error
            for error in find_damage(
                {path: digest for path, (_, _, digest) in owners.items()},
                # Files in a folder of their own become results, which no later stage reads.
                pages={path for path, (_, name, _) in owners.items() if "/" in name},
            )
            if not self.is_published(*owners[as_path(error.path)][1:])
        ]
        for error in errors:
            records.pop(owners[as_path(error.path)][0], None)
        if errors:
            more = (
                f" (and {len(errors) - 1} more file{'s' * (len(errors) > 2)})" if errors[1:] else ""
            )
            logger.warning("%s%s: made again", str(errors[0]).rstrip("."), more)
        return records

    def _record_path(self, name: str) -> AnyPath:
        return self.folder / f"{name}{RECORD}"

    def _remove_leftovers(self) -> None:
        """Remove what a killed process was writing, subfolders included."""
        if is_remote(self.folder):  # unfinished files are on the machines of their tasks
            return
        for leftover in self.folder.rglob(f"{TEMPORARY_PREFIX}*"):
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


def write_note(
    folder: AnyPath, name: str, content: Mapping[str, Any], files: Iterable[AnyPath]
) -> None:
    """Write what is known of the models that a stage begins with, and their files' digests."""
    digests = {path.name: list(digest_of_file(path)) for path in files if exists(path)}
    write_json(folder / name, {**content, FILES: digests})


def read_note(folder: AnyPath, name: str) -> dict[str, Any] | None:
    """Return what `write_note` wrote; None where it, or one of its files, is not whole."""
    content = read_json(folder / name)
    if not isinstance(content, dict) or FILES not in content:
        return None
    damaged = find_damage({folder / file: digest for file, digest in content[FILES].items()})
    if damaged:
        logger.warning("%s: made again", str(damaged[0]).rstrip("."))
        return None
    return content


def files_of_note(folder: AnyPath, name: str) -> dict[str, Any] | None:
    """Return the digests of the files that a note names, whole or not; None without a note."""
    content = read_json(folder / name)
    return content.get(FILES) if isinstance(content, dict) else None


def forget_file(stages: AnyPath, path: str) -> bool:
    """Forget the task that wrote a working file, so that it runs again.

    Parameters
    ----------
    stages : AnyPath
        The folder of the stages.
    path : str
        The file. Where no task has recorded it, it is removed, and the driver makes it again.

    Returns
    -------
    bool
        Whether it is a file of a stage.
    """
    file_path = as_path(path)
    above = f"{str(stages).rstrip('/')}/"
    if not str(file_path).startswith(above):
        return False
    name, _, file = str(file_path).removeprefix(above).partition("/")
    for record in (stages / name).glob(f"*{RECORD}"):
        if file in (read_json(record) or {}).get(FILES, {}):
            remove_file(record)
            break
    remove_file(file_path)
    return True


def _run_and_record(
    function: Callable, folder: str, record_path: str, *arguments: Any
) -> dict[str, Any]:
    """Do one task, then record what it returned and which files it wrote."""
    with noted_files() as noted:
        record = dict(function(*arguments))
    below = {path.removeprefix(folder).lstrip("/"): list(digest) for path, digest in noted.items()}
    record[FILES] = below
    write_json(as_path(record_path), record)
    return record
