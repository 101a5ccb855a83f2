"""``OUT/log.txt``: what the runs into a folder have done, line by line, with the time of each.

A run adds to what is there. The file stays below `_MOST_BYTES` twice: of what earlier runs have
left the end is kept, and a run that has said as much itself says no more. It is no result: it has
no checksum, and without it nothing is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import IO

from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import exists, read_content

__all__ = ["LOG", "RunLog"]

#: Its name in OUT.
LOG = "log.txt"
_MOST_BYTES = 1 << 20


class RunLog(logging.Handler):
    """Takes lines, and what the package logs while it is open; writes them once it knows where.

    On a disk each line is there at once. In a store, which cannot add to an object, all of them
    are written when the log is closed.

    Parameters
    ----------
    most_bytes : int
        Of what earlier runs have left, and of what this one adds.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__()
        self._most_bytes = most_bytes
        self._left = most_bytes
        self._lines: list[bytes] = []  # not written yet
        self._path: AnyPath | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> RunLog:
        logging.getLogger("dask_dedup").addHandler(self)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        logging.getLogger("dask_dedup").removeHandler(self)
        if kind is not None:
            self.note(f"ended by {kind.__name__}: {error}".rstrip(": "))
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Take what is logged."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        self.note(f"{level}{record.getMessage()}")

    def note(self, line: str) -> None:
        """Add a line."""
        with self.lock or nullcontext():
            self._add(line)

    def _add(self, line: str) -> None:
        if self._left <= 0:
            return
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        data = f"{now} {' '.join(line.split())}\n".encode(errors="backslashreplace")
        self._left -= len(data)
        if self._left <= 0:
            data += f"{now} no more is written here by this run\n".encode()
        if self._file is None:
            self._lines.append(data)
        else:
            with suppress(OSError):  # a full disk ends the run elsewhere, with an error
                self._file.write(data)

    def beside(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """Return what hands a line to ``say`` and adds it here.

        What only logs it needs no second line: the log is there, too.
        """

        def say_and_note(line: str) -> None:
            with self.lock or nullcontext():
                left = self._left
                say(line)
                if self._left == left:
                    self._add(line)

        return say_and_note

    def open(self, out: AnyPath) -> None:
        """Write into ``OUT/log.txt`` from now on, and what was said before."""
        self._path = out / LOG
        before = _end_of(self._path, self._most_bytes)
        self._lines.insert(0, before)
        if is_remote(self._path):
            return
        with write_aside(self._path) as temporary:
            temporary.write_bytes(b"".join(self._lines))
        self._lines = []
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  until `close`

    def close(self) -> None:
        """Write what is left."""
        super().close()
        file, self._file = self._file, None
        if file is not None:
            file.close()
        elif self._path is not None and self._lines:
            with suppress(OSError), write_aside(self._path) as temporary:
                temporary.write_bytes(b"".join(self._lines))
        self._path, self._lines = None, []


def _end_of(path: AnyPath, most_bytes: int) -> bytes:
    """Return the last whole lines of a file; nothing where there is none."""
    content = read_content(path) if exists(path) else b""
    if len(content) <= most_bytes:
        return content
    return content[-most_bytes:].partition(b"\n")[2]
