"""One run at a time in one folder.

On a disk, the lock of the operating system on a file: it ends with its process. In an object store,
an object that only one can create; its owner writes it anew every half minute, and one that has not
been written for five minutes is a dead run's.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from pathlib import Path
from threading import Event, Thread

from filelock import FileLock, Timeout

from dask_dedup.errors import OutputError
from dask_dedup.io.objects import age_of, create, read_content
from dask_dedup.places import is_remote

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
_REFRESH_SECONDS = 30.0
_DEAD_SECONDS = 300.0
_SETTLE_SECONDS = 1.0  # in which another that took a dead run's lock over, too, has written its own


class FolderLock:
    """The lock of a folder, local or in a store; the folder need not be there in a store."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file = None if is_remote(folder) else FileLock(self._path, timeout=0)
        self._token = uuid.uuid4().hex
        self._released = Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputError
            Another run has it.
        OSError
            Nothing can be written there.
        """
        if self._file is not None:
            try:
                self._file.acquire()
            except Timeout as error:
                raise OutputError(
                    f"{self._path.parent}: another run is writing into this folder. "
                    f"Wait for it to end, or choose another folder."
                ) from error
            return
        try:
            create(self._path, self._content())
        except FileExistsError as error:
            age = age_of(self._path)
            if age is not None and age < _DEAD_SECONDS:
                raise OutputError(
                    f"{self._path.parent}: another run is writing into this folder "
                    f"({self._owner()}; {age:.0f} s ago). Wait for it to end, or choose another "
                    f"folder. If it is dead, its lock is free {_DEAD_SECONDS / 60:.0f} minutes "
                    f"after it was last written."
                ) from error
            self._path.unlink(missing_ok=True)
            try:
                create(self._path, self._content())
            except FileExistsError as again:
                raise OutputError(
                    f"{self._path.parent}: another run has begun to write into this folder."
                ) from again
            time.sleep(_SETTLE_SECONDS)
            if not self._is_own():
                raise OutputError(
                    f"{self._path.parent}: another run has begun to write into this folder."
                ) from error
        Thread(target=self._refresh, daemon=True).start()

    def is_held(self) -> bool:
        """Return whether a run that is alive has the lock; changes nothing."""
        if self._file is None:
            age = age_of(self._path)
            return age is not None and age < _DEAD_SECONDS
        if not self._path.exists():
            return False
        try:
            with self._file:
                return False
        except Timeout:
            return True

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        self._released.set()
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # while it is ours: later it may be another's
            self._file.release()
        elif self._is_own():
            self._path.unlink(missing_ok=True)

    def _content(self) -> bytes:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        return json.dumps(owner).encode()

    def _read(self) -> dict[str, object]:
        try:
            return dict(json.loads(read_content(self._path)))
        except (OSError, ValueError):
            return {}

    def _is_own(self) -> bool:
        return self._read().get("token") == self._token

    def _owner(self) -> str:
        owner = self._read()
        return f"process {owner.get('pid')} on {owner.get('host')}"

    def _refresh(self) -> None:
        while not self._released.wait(_REFRESH_SECONDS):
            try:
                if self._is_own():
                    self._path.write_bytes(self._content())
            except OSError:
                continue  # a passing error of the store; five minutes are many tries
