"""One run at a time in one folder, on a disk (`disk_lock`) or in an object store (`store_lock`)."""

from __future__ import annotations

from typing import Any

from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.disk_lock import DiskLock
from dask_dedup.storage.store_lock import DEAD_SECONDS, RENEW_SECONDS, StoreLock

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"  # what the names of all files of locks begin with


class FolderLock:
    """The lock of a folder, local or in a store; the folder need not be there in a store.

    Parameters
    ----------
    folder : AnyPath
    break_lock, renew_seconds, dead_seconds
        Of a store: as `dask_dedup.storage.store_lock.StoreLock` takes them.
    """

    def __init__(
        self,
        folder: AnyPath,
        break_lock: bool = False,
        renew_seconds: float = RENEW_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
    ) -> None:
        path = folder / LOCK
        self._file: StoreLock | DiskLock = (
            StoreLock(path, break_lock, renew_seconds, dead_seconds)
            if is_remote(path)
            else DiskLock(path)
        )

    def acquire(self) -> None:
        """Take the lock; in a store, also that of a run that is dead.

        Raises
        ------
        OutputError
            Another run has it.
        OSError
            Nothing can be written there.
        """
        self._file.acquire()

    def holder(self) -> dict[str, Any] | None:
        """Return what is known of the run that has the lock; None where none has. Changes nothing.

        ``host``, ``pid``, ``since``; in a store ``renewed`` and ``renewed_seconds`` as well. Empty
        where the holder did not write them.
        """
        return self._file.holder()

    def is_held(self) -> bool:
        """Return whether a run has the lock; changes nothing."""
        return self.holder() is not None

    def is_own(self) -> bool:
        """Return whether the lock that was acquired has not been taken over since."""
        return self._file.is_own()

    def is_in_doubt(self) -> bool:
        """Return whether `is_own` should be asked, as after a long pause; asks no store."""
        return self._file.is_in_doubt()

    def release(self) -> None:
        """Give the lock back."""
        self._file.release()
