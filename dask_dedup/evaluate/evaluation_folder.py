"""The output folder of an evaluation: whose it is, finished or not, and never anything else's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dask.delayed import Delayed

from dask_dedup.errors import OutputError
from dask_dedup.paths import is_remote
from dask_dedup.runtime.executor import ignore_result
from dask_dedup.storage.files import read_json
from dask_dedup.storage.folder_lock import LOCK, FolderLock
from dask_dedup.storage.stage import MANIFEST, Stage

__all__ = ["finish", "is_finished", "one_by_one", "open_folder"]


@contextmanager
def open_folder(
    path: Path, kind: str, settings: Mapping[str, Any], overwrite: bool = False
) -> Iterator[Stage]:
    """Lock an output folder and give it as a stage.

    What an earlier call with the same settings left is kept: it is the cache.

    Parameters
    ----------
    path : Path
        Made if it is missing.
    kind : str
        What the folder holds: "truth", "pareto".
    settings : mapping
        Everything the content depends on, the input's fingerprint included; JSON.
    overwrite : bool
        Begin anew where an earlier evaluation of this kind had other settings, or finished.

    Raises
    ------
    OutputError
        The folder holds something else, or the same of other settings or another input; it is in
        use; or it cannot be written.
    """
    stage = Stage(path, {"kind": kind, **settings, "version": version("dask_dedup")})
    if is_remote(path):
        raise OutputError(f"{path}: evaluations write to disks only; give a local folder.")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: is a file; the output needs a folder.")
    lock = FolderLock(path)
    try:
        made = not path.is_dir()
        _check_content(stage, kind, overwrite)
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    try:
        if overwrite:
            _empty(path)
        yield stage
    except BaseException:
        if made and not (path / MANIFEST).exists():
            shutil.rmtree(path, ignore_errors=True)  # nothing was begun: leave nothing
        raise
    finally:
        lock.release()


def is_finished(stage: Stage) -> bool:
    """Return whether the stage's folder holds the finished result of its very settings."""
    manifest = read_json(stage.folder / MANIFEST) or {}
    return bool(manifest.get("finished")) and manifest.get("digest") == stage.digest


def finish(stage: Stage) -> None:
    """Declare a stage finished whose results its driver has written."""
    stage.run(dict, {}, one_by_one, ignore_result)


def one_by_one(tasks: Sequence[Delayed], on_result: Callable[[Any], None]) -> list[Any]:
    """Compute tasks in this process, one after the other: an `Execute` for what is timed."""
    results = []
    for task in tasks:
        results.append(task.compute(scheduler="synchronous"))
        on_result(results[-1])
    return results


def _check_content(stage: Stage, kind: str, overwrite: bool) -> None:
    """Raise OutputError unless the folder is missing, empty, or of this stage."""
    path = stage.folder
    if not path.is_dir():
        return
    manifest = read_json(path / MANIFEST)
    settings = manifest.get("settings") if isinstance(manifest, dict) else None
    if not isinstance(settings, dict) or settings.get("kind") != kind:
        foreign = sorted(p.name for p in path.iterdir() if p.name != LOCK)
        if foreign:
            raise OutputError(
                f"{path}: holds files of something else ({', '.join(foreign[:3])}"
                f"{', …' if len(foreign) > 3 else ''}). Choose an empty folder or a new one."
            )
        return
    if overwrite or (isinstance(manifest, dict) and manifest.get("digest") == stage.digest):
        return
    changed = [
        f"{key} ({settings.get(key)} → {stage.settings.get(key)})"
        for key in sorted({*settings, *stage.settings})
        if settings.get(key) != stage.settings.get(key)
    ]
    raise OutputError(
        f"{path}: holds the {kind} of another input or other settings: {', '.join(changed)}. "
        f"Choose another folder, or begin anew with --overwrite."
    )


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
