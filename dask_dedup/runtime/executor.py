"""How a stage gets its tasks computed: one small function type, passed in by the caller.

Library code builds lists of ``dask.delayed`` tasks and hands them to an `Execute`. The default
uses whatever Dask scheduler is current; the command line passes one that follows a distributed
client's tasks as they finish, so that progress is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import dask
from dask.delayed import Delayed

__all__ = [
    "Execute",
    "NoProgress",
    "OnResult",
    "OnWorker",
    "Progress",
    "compute_tasks",
    "ignore_result",
]

OnResult = Callable[[Any], None]
Execute = Callable[[Sequence[Delayed], OnResult], list[Any]]


class OnWorker:
    """A function by its name, imported where it is called.

    Who makes tasks need not load what the tasks need: torch alone takes a second.

    Parameters
    ----------
    module, name : str

    Examples
    --------
    >>> OnWorker("math", "sqrt")(4.0)
    2.0
    """

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.__name__ = name  # Dask names tasks by it

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return getattr(import_module(self.module), self.__name__)(*arguments)


def compute_tasks(tasks: Sequence[Delayed], on_result: OnResult) -> list[Any]:
    """Compute all tasks on the current Dask scheduler; results in the order of the tasks.

    Parameters
    ----------
    tasks : sequence of Delayed
        None needs another of them: Dask's scheduler fails on such a one when it is cancelled.
    on_result : callable
        Called once with each result.
    """
    results = list(dask.compute(*tasks)) if tasks else []
    for result in results:
        on_result(result)
    return results


def ignore_result(result: Any) -> None:
    """Do nothing; the `on_result` of callers that want no news."""


class Progress(Protocol):
    """Follows a run, stage by stage; the command line shows it, a library caller need not."""

    def start(self, stage: str, rows: int) -> None:
        """Begin a stage that will go over so many rows."""

    def advance(self, rows: int) -> None:
        """Note that so many rows more are done."""

    def skip(self, rows: int) -> None:
        """Note that an earlier start did so many rows: they are done, and count for no rate."""

    def finish(self) -> None:
        """End the stage."""

    def close(self) -> None:
        """End the display, also after an error."""


class NoProgress:
    """A `Progress` that shows nothing."""

    def start(self, stage: str, rows: int) -> None:
        """Show nothing."""

    def advance(self, rows: int) -> None:
        """Show nothing."""

    def skip(self, rows: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""
