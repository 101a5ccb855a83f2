"""What the command shows, on any terminal, and how it ends on a signal.

A terminal that knows Latin-1 or ASCII only must not fail a run that is done: what it cannot show is
shown by other characters. So are bytes of a file's name that are no text.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import threading
import time
from typing import Any

import psutil

__all__ = [
    "Terminated",
    "end_code",
    "end_word",
    "listen_to_signals",
    "note_start",
    "seconds_so_far",
    "show_on_any_terminal",
]

_PLAIN = {
    "█": "#",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "·": "*",
    "…": "...",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "━": "-",
    "╸": "-",
    "╺": "-",
    "²": "2",
    "√": "sqrt ",
}


_started: dict[str, float] = {}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def note_start(is_process: bool = False) -> None:
    """Count the seconds of the command from now, or from the start of its process."""
    if is_process:
        _started["process"] = psutil.Process().create_time()
    _started["command"] = _started.get("process", time.time())


def seconds_so_far() -> float:
    """Return for how long the command goes on."""
    return time.time() - _started["command"]


def listen_to_signals() -> None:
    """Make the first SIGTERM raise `Terminated`; a second one ends the process at once.

    An exception that a signal raises in a callback, of which imports have many, is lost; the signal
    is given again.
    """

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    def give_again(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        again = signal.SIGINT
        if issubclass(lost.exc_type, Terminated):
            again = signal.SIGTERM
            signal.signal(again, end)
        threading.Timer(0.05, os.kill, (os.getpid(), again)).start()

    signal.signal(signal.SIGTERM, end)
    before, sys.unraisablehook = sys.unraisablehook, give_again


def end_word(stop: KeyboardInterrupt) -> str:
    """Return what has happened, in a word."""
    return "terminated" if isinstance(stop, Terminated) else "interrupted"


def end_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code: what a shell gives for Ctrl-C, or for SIGTERM."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def show_on_any_terminal() -> None:
    """Print what the terminal's encoding lacks by plainer characters, or escaped."""
    codecs.register_error("dask-dedup", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # else closed, or not a terminal's
            stream.reconfigure(errors="dask-dedup")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Return the characters that an encoding lacks in plain ones; see `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = (_PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text)
    return "".join(shown), error.end
