"""Peak memory of this process and all its children."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

__all__ = ["TreeMemory"]

_INTERVAL_SECONDS = 0.5  # a look costs some milliseconds: /proc is slow
_LISTED_EVERY = 2  # measurements between two looks for new processes, which cost much more


class TreeMemory:
    """Measures the peak of the summed resident memory of a process tree, from a thread.

    Pages that processes share are counted in each of them, so the figure is an upper bound.
    Workers that another machine runs are not seen.

    Examples
    --------
    >>> with TreeMemory() as memory:
    ...     block = bytearray(1 << 20)
    >>> memory.peak_bytes > 1 << 20
    True
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._process = psutil.Process()
        self._tree = [self._process]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TreeMemory:
        self._list_tree()
        self._measure()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._list_tree()
        self._measure()

    def _watch(self) -> None:
        rounds = 0
        while not self._stop.wait(_INTERVAL_SECONDS):
            rounds += 1
            if rounds % _LISTED_EVERY == 0:
                self._list_tree()
            self._measure()

    def _list_tree(self) -> None:
        self._tree = [self._process, *self._process.children(recursive=True)]

    def _measure(self) -> None:
        total = 0
        for process in self._tree:
            try:
                total += process.memory_info().rss
            except psutil.Error:  # ended in the meantime
                continue
        self.peak_bytes = max(self.peak_bytes, total)
