"""The claim on an output folder: what it holds is looked at, then it is made, locked, given back.

Every command that writes a folder claims it so: runs, compressions, calibrations, indexes and
evaluations. What is allowed to be there is theirs to say; nothing is changed before they have.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from dask_dedup.errors import OutputError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.folder_lock import FolderLock
from dask_dedup.storage.objects import exists, make_folder, remove_file, remove_tree, words_of

__all__ = ["Claim", "remove_names"]


class Claim:
    """One output folder, which nobody else writes into while it is open.

    Parameters
    ----------
    path : AnyPath
        Made if it is missing, and removed in the end if nothing was written.
    check : callable
        Raises OutputError where the folder holds what is not to be written over.
    lock : FolderLock, optional
        Of the folder, where it is to be another than the usual one.

    Raises
    ------
    OutputError
        On entry: ``check`` has refused it, it is a file, it cannot be written, or another process
        is writing into it.
    """

    def __init__(
        self, path: AnyPath, check: Callable[[], None], lock: FolderLock | None = None
    ) -> None:
        self.path = path
        self._check = check
        self._lock = lock or FolderLock(path)
        self._made: list[Path] = []  # folders that were not there

    def __enter__(self) -> Self:
        try:
            if exists(self.path) and not self.path.is_dir():
                raise OutputError(f"{self.path}: is a file; the output needs a folder.")
            if not is_remote(self.path) and os.path.islink(self.path) and not exists(self.path):
                raise OutputError(
                    f"{self.path}: is a link to {os.readlink(self.path)}, which is not there. Make "
                    f"that folder, or remove the link."
                )
            self._check()
            self._make()
            self._lock.acquire()
        except OSError as error:
            self._remove_made()
            raise OutputError(f"{self.path}: cannot be written ({words_of(error)}).") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
        self._remove_made()

    def check_own(self) -> None:
        """Raise OutputError where another process has taken the folder over; asks the store."""
        if not self._lock.is_own():
            raise OutputError(
                f"{self.path}: another run has taken this folder, with --break-lock or because "
                f"this one sent no heartbeat for minutes; this one ends."
            )

    def check_after_pause(self) -> None:
        """Do what `check_own` does, if that may have happened; seldom asks the store."""
        if self._lock.is_in_doubt():
            self.check_own()

    def _make(self) -> None:
        """Make the folder, and remember which of its parents were not there."""
        if not is_remote(self.path):
            above = [*self.path.absolute().parents][::-1]
            self._made = [p for p in (*above, self.path) if not os.path.lexists(p)]
        make_folder(self.path)

    def _remove_made(self) -> None:
        """Remove the folders that were made, if nothing was begun in them."""
        with suppress(OSError):  # not empty
            for folder in reversed(self._made):
                folder.rmdir()


def remove_names(folder: AnyPath, names: Iterable[str]) -> None:
    """Remove what has these names in a folder, folders with all that is in them; nothing else."""
    for path in (folder / name for name in names):
        is_link = not is_remote(path) and path.is_symlink()
        if path.is_dir() and not is_link:
            remove_tree(path)
        else:
            remove_file(path)
