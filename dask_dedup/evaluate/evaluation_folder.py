"""The output folder of an evaluation: claimed for one kind, with checked settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dask.delayed import Delayed

from dask_dedup.errors import OutputError
from dask_dedup.paths import is_remote
from dask_dedup.runtime.executor import ignore_result
from dask_dedup.storage.claim import Claim, remove_names
from dask_dedup.storage.files import read_json
from dask_dedup.storage.foreign_content import refuse_other_content
from dask_dedup.storage.stage import MANIFEST, RECORD, Stage

__all__ = ["RESULTS", "finish", "is_finished", "one_by_one", "open_folder"]

#: What each kind of evaluation writes beside its manifest and the records of its tasks, by the
#: command or by the library: all that --overwrite removes.
RESULTS = {
    "truth": ("neighbours", "pairs", "scan", "summary.json"),
    "pareto": ("models", "stages", "truth", "pareto.csv", "pareto.json", "pareto.png"),
    "paper": (
        *("models", "pairs", "pareto", "retrieval", "zeroshot"),
        *("components.json", "index.md"),
    ),
}


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
        Begin anew where an earlier evaluation of this kind had other settings, or finished: its
        `RESULTS` are removed, what else lies there stays.

    Raises
    ------
    OutputError
        The folder holds something else, or the same of other settings or another input; it is in
        use; or it cannot be written.
    """
    stage = Stage(path, {"kind": kind, **settings, "version": version("dask_dedup")})
    if is_remote(path):
        raise OutputError(f"{path}: evaluations write to disks only; give a local folder.")
    with Claim(path, partial(_check_content, stage, kind, overwrite)):
        if overwrite:
            remove_names(path, (*RESULTS[kind], MANIFEST))
            remove_names(path, [p.name for p in path.glob(f"*{RECORD}")])
        if not (path / MANIFEST).exists():
            stage.declare()  # else `Stage.prepare` would remove the files of others
        yield stage


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
    manifest = read_json(path / MANIFEST)
    settings = manifest.get("settings") if isinstance(manifest, dict) else None
    if not isinstance(settings, dict) or settings.get("kind") != kind:
        refuse_other_content(path)
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
