"""The same small question to thousands of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ask_each_file"]

_THREADS = 16  # which mostly wait, for disks of a network and for stores
_MOST_FILES = 64  # a thread's turn: handing over single files costs three times a local answer
Answer = TypeVar("Answer")


def ask_each_file(ask: Callable[[str], Answer], paths: Sequence[str]) -> list[Answer]:
    """Return what ``ask`` says of each path, in their order; asked by threads."""
    size = max(1, min(_MOST_FILES, len(paths) // (4 * _THREADS)))
    with ThreadPoolExecutor(_THREADS) as pool:
        turns = [paths[start : start + size] for start in range(0, len(paths), size)]
        answers = pool.map(lambda turn: [ask(path) for path in turn], turns)
        return [answer for some in answers for answer in some]
