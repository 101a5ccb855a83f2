"""The output folder of a run: who may write into it, what is finished, what is published.

``run.json`` says which settings and which input the folder belongs to, and whether the run is
finished. Results are made under ``stages/`` and renamed into place at the end; ``summary.json`` is
written last and removed first, so that where it is, the rest belongs to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dask_dedup.errors import OutputError
from dask_dedup.io.folder_lock import LOCK, FolderLock
from dask_dedup.io.objects import (
    check_writable,
    exists,
    make_folder,
    move_folder,
    remove_file,
    remove_tree,
    words_of,
)
from dask_dedup.io.store import Stage, digest_of, read_json, write_json
from dask_dedup.places import as_place, is_remote

__all__ = ["AUDIT_QUERIES", "RunFolder", "work_folder"]

logger = logging.getLogger(__name__)

_TOOL = "dask_dedup"
#: In OUT: the rows that the audit has sampled.
AUDIT_QUERIES = "audit/queries.parquet"


class RunFolder:
    """One output folder, locked while it is open.

    Parameters
    ----------
    path : Path
        Made if it is missing.
    settings : mapping
        All settings that the result depends on.
    fingerprint : str
        Of the input.
    overwrite : bool
        Begin anew, whatever an earlier run left.
    work : str, optional
        Folder or URL that the working files go under, in a folder of this run's own.
    break_lock : bool
        In a store: take over from a run on another machine that cannot be known to be dead.

    Raises
    ------
    OutputError
        On entry: the folder holds something else, or another run is writing into it.

    Attributes
    ----------
    state_name : str
        File that tells whose the folder is; other commands' folders have another.
    result_folders, result_files : tuple of str
        What is there when a run has finished.
    """

    state_name = "run.json"
    result_folders: tuple[str, ...] = ("audit", "clusters", "forest", "invalid")
    result_files: tuple[str, ...] = (
        "histogram.csv",
        "histogram.png",
        "settings.toml",
        "summary.json",
    )

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        fingerprint: str,
        overwrite: bool = False,
        work: str | None = None,
        break_lock: bool = False,
    ) -> None:
        self.path = path
        self.settings = settings
        self.fingerprint = fingerprint
        self.overwrite = overwrite
        #: Folder of the working files.
        self.stages = work_folder(path, work)
        #: Facts of the search whose forest is in OUT and is used; see `begin`.
        self.search: Mapping[str, Any] | None = None
        #: Files of the input that the run goes without, as `read_set_aside` gives them.
        self.set_aside: list[dict[str, Any]] = []
        self._lock = FolderLock(path, break_lock)

    def __enter__(self) -> Self:
        try:
            self._check_content()
            make_folder(self.path)
            self._lock.acquire()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({words_of(error)}).") from error
        if self.overwrite:
            self._remove_own()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    @property
    def digest(self) -> str:
        """Digest of settings, input and this package's version."""
        return digest_of({"settings": dict(self.settings), **self._origin})

    @property
    def _origin(self) -> dict[str, str]:
        return {"input": self.fingerprint, "version": version("dask_dedup")}

    def is_finished(self) -> bool:
        """Return whether this very run has finished here before."""
        state = self._read_state()
        return (
            bool(state.get("finished"))
            and state.get("digest") == self.digest
            and all(exists(self.path / name) for name in (*self.result_folders, *self.result_files))
        )

    def kept_search(self) -> dict[str, Any] | None:
        """Return the facts of the search that OUT/forest comes from: same input, same version."""
        state = self._read_state()
        is_here = all(exists(self.path / name) for name in self.result_folders)
        is_same = all(state.get(name) == value for name, value in self._origin.items())
        search = state.get("search")
        return dict(search) if is_here and is_same and isinstance(search, Mapping) else None

    def begin(self, search: Mapping[str, Any] | None = None) -> None:
        """Claim the folder; log what differs from an earlier run here.

        ``search``: facts of the search whose forest is kept; without, it is made anew.
        """
        check_writable(self.stages)
        self.search = search
        state = self._read_state()
        if state and state.get("digest") != self.digest:
            changed = _changed_keys(state.get("settings", {}), self.settings)
            if state.get("input") != self.fingerprint:
                changed.append("the input files")
            if state.get("version") != version("dask_dedup"):
                changed.append("the version of dask_dedup")
            logger.warning("%s: changed since the last run: %s", self.path, ", ".join(changed))
        remove_file(self.path / "summary.json")
        self._write_state(finished=False)

    def begin_again(
        self, settings: Mapping[str, Any], fingerprint: str, set_aside: list[dict[str, Any]]
    ) -> None:
        """Go on with less input: no search of before answers it."""
        self.settings, self.fingerprint = settings, fingerprint
        self.search, self.set_aside = None, set_aside
        self._write_state(finished=False)

    @classmethod
    def read_set_aside(cls, path: Path) -> list[dict[str, Any]]:
        """Return the files that the last run into ``path`` went without."""
        state = read_json(path / cls.state_name)
        found = state.get("set_aside") if isinstance(state, dict) else None
        return found if isinstance(found, list) else []

    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """Return a stage under ``stages/`` that depends on ``settings``, input and version."""
        return Stage(self.stages / name, {**settings, **self._origin})

    def publish(self, made: Path) -> None:
        """Rename a finished folder into place; nothing to do if an interrupted run has done it.

        Raises
        ------
        OutputError
            The folder is in neither place: someone has removed a result, but kept the stages.
        """
        target = self.path / made.name
        self._check_lock()
        if exists(made):
            move_folder(made, target, self._check_after_pause)
        elif not exists(target):
            raise OutputError(
                f"{target}: has been removed, and its stage does not run again. "
                f"Begin anew with --overwrite."
            )

    def finish(
        self,
        summary: Mapping[str, Any],
        keep_stages: bool,
        search: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the summary, declare the run finished, remove the working files.

        ``search``: what is to be known of OUT/forest to use it again.
        """
        self._check_lock()
        self.search = search
        write_json(self.path / "summary.json", dict(summary))
        self._write_state(finished=True)
        if not keep_stages:
            remove_tree(self.stages)

    def read_summary(self) -> dict[str, Any]:
        """Return the summary of the finished run."""
        return dict(read_json(self.path / "summary.json") or {})

    def _check_after_pause(self) -> None:
        if self._lock.is_in_doubt():
            self._check_lock()

    def _check_lock(self) -> None:
        if not self._lock.is_own():
            raise OutputError(
                f"{self.path}: another run has taken this folder, with --break-lock or because "
                f"this one gave no sign of life for minutes; this one ends."
            )

    def _check_content(self) -> None:
        if exists(self.path) and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file; the output needs a folder.")
        if not self.path.is_dir() or self._read_state():
            return
        foreign = sorted(p.name for p in self.path.iterdir() if not p.name.startswith(LOCK))
        if foreign:
            raise OutputError(
                f"{self.path}: holds files of something else ({', '.join(foreign[:3])}"
                f"{', …' if len(foreign) > 3 else ''}). Choose an empty folder or a new one."
            )

    def _remove_own(self) -> None:
        remove_tree(self.stages)
        for name in (*self.result_folders, *self.result_files, self.state_name):
            path = self.path / name
            if path.is_dir():
                remove_tree(path)
            else:
                remove_file(path)

    def _read_state(self) -> dict[str, Any]:
        """Return what our ``run.json`` says; empty where there is none, or another tool's."""
        state = read_json(self.path / self.state_name)
        if isinstance(state, dict) and state.get("tool") == _TOOL:
            return state
        return {}

    def _write_state(self, finished: bool) -> None:
        write_json(
            self.path / self.state_name,
            {
                "tool": _TOOL,
                "finished": finished,
                "digest": self.digest,
                **self._origin,
                "stages": str(self.stages),
                "search": self.search,
                "set_aside": self.set_aside,
                "settings": dict(self.settings),
            },
        )


def work_folder(out: Path, work: str | None) -> Path:
    """Return the folder of a run's working files: in OUT, or one of its own under ``work``."""
    if work is None:
        return out / "stages"
    name = str(out) if is_remote(out) else str(out.absolute())
    return as_place(work) / f"dask-dedup-{digest_of({'out': name})}"


def _changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    changed = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += _changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key} ({before} → {after})")
    return changed
