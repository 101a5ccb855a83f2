"""The lock of a folder on a disk: the operating system's own, which ends with its process.

It lies on a file that is removed at the end. Whoever has opened it before locks a file that has no
name any more, while another may lock a new one: so the name is looked at again after locking.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any

from dask_dedup.errors import OutputError
from dask_dedup.storage.lock_holder import describe_this_process, holder_text, read_holder

__all__ = ["DiskLock"]

#: Whoever asks whether a lock is held shares it for a moment; that must not keep a run from it.
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.02
_MOST_BYTES = 1 << 16  # of what is said of the holder


class DiskLock:
    """The lock on one file, made if it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputError
            Another has it, and has had it for two seconds.
        OSError
            Nothing can be written there.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            file = _open(self._path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(self._path, file):
                    _refuse_foreign(self._path, os.pread(file, _MOST_BYTES, 0))
                    os.ftruncate(file, 0)
                    os.pwrite(file, describe_this_process(""), 0)
                    self._file, file = file, -1
                    return
            except BlockingIOError:
                holder_info = read_holder(os.pread(file, _MOST_BYTES, 0))
                if time.monotonic() > until:
                    raise OutputError(
                        f"{self._path.parent}: another run is writing into this folder "
                        f"({holder_text(holder_info)}). Wait for it to end, or choose another "
                        f"folder."
                    ) from None
            except OSError as error:
                if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise OutputError(
                        f"{self._path.parent}: this disk knows no locks ({error.strerror}), so "
                        f"that two runs could write into one folder. Mount it with locks (flock), "
                        f"or choose a folder on another disk."
                    ) from error
                raise
            finally:
                if file >= 0:
                    os.close(file)
            time.sleep(_PAUSE_SECONDS)

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        if self._file is None:
            return
        if _is_at(self._path, self._file):
            self._path.unlink(missing_ok=True)  # while it is ours: later it may be another's
        os.close(self._file)
        self._file = None

    def is_own(self) -> bool:
        """Return True: the operating system lets nobody break a lock."""
        return True

    def is_in_doubt(self) -> bool:
        """Return False."""
        return False

    def holder(self) -> dict[str, Any] | None:
        """Return what is known of the process that has the lock; None where nobody has."""
        try:
            file = _open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_holder(os.pread(file, _MOST_BYTES, 0))
        finally:
            os.close(file)  # and with it the share of the lock
        return None


def _open(path: Path, flags: int) -> int:
    """Open a lock's file, and never what a link leads to, which may be the user's."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OutputError(f"{path}: is a link, where the lock of a run would be.") from error


def _refuse_foreign(path: Path, content: bytes) -> None:
    """Raise OutputError where the file is not a lock that a run has left."""
    if content and not read_holder(content):
        raise OutputError(f"{path}: is no lock of a run, and would be lost. Move it away.")


def _is_at(path: Path, file: int) -> bool:
    """Return whether a name still leads to an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
