"""The lock of a folder in an object store, which knows no locks.

It is an object that only one can create: ``.lock``. It is never written again; beside it its run
writes a heartbeat, ``.lock-TOKEN-alive``, every half minute. A lock is free where its process
is known to be dead, or five minutes after its last heartbeat, both by the store's clock.

Whoever takes over from a dead run creates the successor of its lock, ``.lock-TOKEN``, which again
only one can do; nobody removes another's. The last of this chain has the folder. Then it looks at
its predecessor's heartbeats once more, as a run that was late sends one before it looks for a
successor: so one of the two sees the other.

A run that was stopped for longer and goes on finds a successor, or nothing of its own: it has lost
the folder, and the heartbeat that it writes is not part of another's lock.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dask_dedup.errors import OutputError
from dask_dedup.paths import RemotePath, words_of
from dask_dedup.storage.lock_holder import describe_this_process, holder_text, is_dead, read_holder
from dask_dedup.storage.objects import read_content, remove_file
from dask_dedup.storage.small_objects import create, modified_at, store_time, write

__all__ = ["DEAD_SECONDS", "RENEW_SECONDS", "StoreLock"]

logger = logging.getLogger(__name__)

RENEW_SECONDS = 30.0  # between two heartbeats
DEAD_SECONDS = 300.0  # without one: the lock is free


class StoreLock:
    """The lock that begins with one object.

    Parameters
    ----------
    path : RemotePath
        Of the first object; the others are beside it.
    break_lock : bool
        Take the lock over, even where its run may be alive.
    renew_seconds, dead_seconds : float
        Between two heartbeats, and without one until the lock is free. All who use one lock must
        agree on them.
    """

    def __init__(
        self,
        path: RemotePath,
        break_lock: bool = False,
        renew_seconds: float = RENEW_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
    ) -> None:
        self._path = path
        self._break = break_lock
        self._renew_seconds, self._dead_seconds = renew_seconds, dead_seconds
        self._token = uuid.uuid4().hex
        self._renewed: float | None = None  # when the last heartbeat was sent, by `_clock`
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock; also that of a run that is dead.

        Raises
        ------
        OutputError
            Another run has it.
        OSError
            Nothing can be written there.
        """
        chain = self._chain()
        last = chain[-1] if chain else None
        is_known = self._break or last is None or is_dead(last[1])
        if last is not None and not is_known and not self._is_silent(last, self._written_now()):
            raise OutputError(self._held(last))
        own = self._path if last is None else self._beside(last[1])
        begun = f"{self._path.parent}: another run has just begun to write into this folder."
        sent = _clock()
        try:
            create(own, describe_this_process(self._token))
        except FileExistsError as error:
            raise OutputError(begun) from error
        self._check_exclusive(own)
        if last is not None and not is_known and not self._is_silent(last, modified_at(own)):
            remove_file(own)  # its run goes on
            raise OutputError(self._held(last))
        self._renewed = sent
        if not self.is_own():  # the whole chain was removed meanwhile, by a successor that ended
            remove_file(own)
            raise OutputError(begun)
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep_alive, name="lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lock back, and remove its objects."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = self._renewed = None
        remove_file(self._sign_of(self._token))
        chain = self._chain()
        if not chain or chain[-1][1]["token"] != self._token:
            return
        for path, _ in chain:  # the first one first: nobody can succeed the rest then
            remove_file(path)
        for _, holder_info in chain[:-1]:
            remove_file(self._sign_of(holder_info["token"]))

    def is_own(self) -> bool:
        """Return whether the lock that was acquired has not been taken over since.

        After a pause, not without a new heartbeat: else it might be taken in the next moment.
        """
        if self._renewed is None:
            return False
        if self.is_in_doubt():
            self._renew()
        chain = self._chain()
        return bool(chain) and chain[-1][1]["token"] == self._token

    def is_in_doubt(self) -> bool:
        """Return whether the last heartbeat is so old that the lock may soon be another's."""
        return self._renewed is None or _clock() - self._renewed > self._dead_seconds / 2

    def holder(self) -> dict[str, Any] | None:
        """Return what is known of the run that has the lock; None where none is alive.

        With ``renewed``, the time of its last heartbeat, and ``renewed_seconds``, its age.
        """
        chain = self._chain()
        if not chain or is_dead(chain[-1][1]):
            return None
        signed = self._signed_at(chain[-1])
        try:
            age = max(0.0, store_time(chain[-1][0]) - signed)
        except FileNotFoundError:  # given back meanwhile
            return None
        if age > self._dead_seconds:
            return None
        renewed = datetime.fromtimestamp(signed, UTC).isoformat(" ", "seconds")
        return {**chain[-1][1], "renewed": renewed, "renewed_seconds": age}

    def _check_exclusive(self, own: RemotePath) -> None:
        """Warn where a store, or an old client of it, creates what is there already."""
        try:
            create(own, describe_this_process(self._token))
        except FileExistsError:
            return
        logger.warning(
            "%s: this store, or its client, ignores that an object must be new (If-None-Match"
            "): of two runs that begin in the same second both may write here",
            self._path.parent,
        )

    def _keep_alive(self) -> None:
        """Send a heartbeat now and then, until the lock is released or lost."""
        is_failing = False
        while not self._stop.wait(self._renew_seconds):
            try:
                chain = self._chain()
                if not chain or chain[-1][1]["token"] != self._token:
                    logger.warning(
                        "%s: another run has taken this folder, or its lock was removed; this one "
                        "ends before it publishes anything more",
                        self._path.parent,
                    )
                    return
                self._renew()
            except OSError as error:
                if not is_failing:
                    logger.warning(
                        "%s: the lock cannot be renewed (%s); after %g seconds another run may "
                        "take the folder",
                        self._path.parent,
                        words_of(error),
                        self._dead_seconds,
                    )
                is_failing = True
            else:
                if is_failing:
                    logger.warning("%s: the lock is renewed again", self._path.parent)
                is_failing = False

    def _renew(self) -> None:
        sent = _clock()
        write(self._sign_of(self._token), datetime.now(UTC).isoformat().encode())
        self._renewed = sent

    def _chain(self) -> list[tuple[RemotePath, dict[str, Any]]]:
        """Return the lock and its successors, each with its owner: the last one has the folder."""
        chain: list[tuple[RemotePath, dict[str, Any]]] = []
        path = self._path
        while True:
            try:
                holder_info = read_holder(read_content(path))
            except FileNotFoundError:
                return chain
            holder_info.setdefault("token", f"after-{path.name}")
            chain.append((path, holder_info))
            path = self._beside(holder_info)

    def _beside(self, holder_info: Mapping[str, Any], ending: str = "") -> RemotePath:
        return self._path.with_name(f"{self._path.name}-{holder_info['token']}{ending}")

    def _sign_of(self, token: str) -> RemotePath:
        return self._beside({"token": token}, "-alive")

    def _signed_at(self, link: tuple[RemotePath, Mapping[str, Any]]) -> float:
        """Return when the owner of a lock was last known to live, by the store's clock."""
        times = [0.0]
        for path in (link[0], self._sign_of(link[1]["token"])):
            try:
                times.append(modified_at(path))
            except FileNotFoundError:  # given back, or no sign yet
                continue
        return max(times)

    def _is_silent(self, link: tuple[RemotePath, Mapping[str, Any]], now: float) -> bool:
        return now - self._signed_at(link) > self._dead_seconds

    def _written_now(self) -> float:
        """Return the time by the store's clock: that of an object just written."""
        probe = self._beside({"token": self._token}, "-now")
        write(probe, b"")
        try:
            return modified_at(probe)
        finally:
            remove_file(probe)

    def _held(self, link: tuple[RemotePath, Mapping[str, Any]]) -> str:
        return (
            f"{self._path.parent}: another run is writing into this folder "
            f"({holder_text(link[1])}). Wait for it to end, or choose another folder. If that "
            f"process is dead, the folder is free {self._dead_seconds:g} seconds after its last "
            f"heartbeat, or at once with --break-lock."
        )


def _clock() -> float:
    """Return seconds of a clock that goes on while this process, or this machine, is stopped."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
