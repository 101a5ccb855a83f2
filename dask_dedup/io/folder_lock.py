"""One run at a time in one folder.

On a disk, the lock of the operating system on a file: it ends with its process. In an object store,
an object that only one can create, and that stays when its process is killed. Whoever takes over
from a dead run creates the successor of its lock, ``.lock-TOKEN``, which again only one can do;
nobody removes another's.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from dask_dedup.errors import OutputError
from dask_dedup.io.objects import create, read_content, remove_file
from dask_dedup.places import is_remote

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
_SAME_SECONDS = 1.0  # a process's start is computed from clock ticks


class FolderLock:
    """The lock of a folder, local or in a store; the folder need not be there in a store.

    ``break_lock``: take the lock of a run in a store over, even where it may be alive.
    """

    def __init__(self, folder: Path, break_lock: bool = False) -> None:
        self._path = folder / LOCK
        self._file = None if is_remote(folder) else FileLock(self._path, timeout=0)
        self._token = uuid.uuid4().hex
        self._break = break_lock

    def acquire(self) -> None:
        """Take the lock; in a store, also that of a run known to be dead.

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
        chain = self._chain()
        if chain and not (self._break or _is_dead(chain[-1][1])):
            owner = chain[-1][1]
            raise OutputError(
                f"{self._path.parent}: another run is writing into this folder (process "
                f"{owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}). Wait for "
                f"it to end, or choose another folder. If that process is certainly dead, take its "
                f"place with --break-lock."
            )
        own = self._successor(chain[-1][1]) if chain else self._path
        begun = f"{self._path.parent}: another run has just begun to write into this folder."
        try:
            create(own, self._content())
        except FileExistsError as error:
            raise OutputError(begun) from error
        if not self.is_own():  # the whole chain was removed meanwhile, by a successor that ended
            remove_file(own)
            raise OutputError(begun)

    def is_held(self) -> bool:
        """Return whether a run has the lock that is not known to be dead; changes nothing."""
        if self._file is None:
            chain = self._chain()
            return bool(chain) and not _is_dead(chain[-1][1])
        if not self._path.exists():
            return False
        try:
            with self._file:
                return False
        except Timeout:
            return True

    def is_own(self) -> bool:
        """Return whether the lock that was acquired has not been broken since."""
        if self._file is not None:
            return True  # the operating system lets nobody break it
        chain = self._chain()
        return bool(chain) and chain[-1][1].get("token") == self._token

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # while it is ours: later it may be another's
            self._file.release()
        elif self.is_own():
            for path, _ in self._chain():  # the first one first: nobody can succeed the rest then
                remove_file(path)

    def _content(self) -> bytes:
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "machine": _machine(),
            "since": datetime.now(UTC).isoformat(" ", "seconds"),
            "token": self._token,
        }
        return json.dumps(owner, indent=2).encode()

    def _chain(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return the lock and its successors, each with its owner: the last one has the folder."""
        chain: list[tuple[Path, dict[str, Any]]] = []
        path = self._path
        while (owner := _read_owner(path)) is not None:
            chain.append((path, owner))
            path = self._successor(owner)
        return chain

    def _successor(self, owner: dict[str, Any]) -> Path:
        return self._path.with_name(f"{LOCK}-{owner.get('token')}")


def _read_owner(path: Path) -> dict[str, Any] | None:
    """Return what a lock says of its owner; None where there is no lock."""
    try:
        return dict(json.loads(read_content(path)))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError):
        return {"token": f"after-{path.name}"}  # nothing of ours


def _is_dead(owner: dict[str, Any]) -> bool:
    """Return whether a process ran on this machine and does no more; elsewhere nobody knows."""
    if owner.get("machine") != _machine():
        return False
    try:
        process = psutil.Process(owner["pid"])
        is_another = abs(process.create_time() - owner["started"]) > _SAME_SECONDS
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _machine() -> str:
    """Return what tells this machine, since it was started, and these process ids from others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return f"{socket.gethostname()} {uuid.getnode():x}"
    return f"{boot.read_text(encoding='ascii').strip()} {os.readlink('/proc/self/ns/pid')}"
