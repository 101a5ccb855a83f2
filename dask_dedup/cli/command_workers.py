"""The workers of a command that hands tasks to a function of the library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from dask_dedup.paths import AnyPath

if TYPE_CHECKING:
    from dask_dedup.runtime.executor import Execute, OnResult
    from dask_dedup.settings.run_settings import Settings

__all__ = ["lazy_workers"]


@contextmanager
def lazy_workers(settings: Settings, out: AnyPath) -> Iterator[Execute]:
    """Give what computes tasks: workers as the settings say, started with the first tasks.

    Parameters
    ----------
    settings : Settings
    out : AnyPath
        Where the output goes; what workers spill goes beside the working files.
    """
    from dask_dedup.pipeline.worker_imports import PRELOAD
    from dask_dedup.runtime.deployment import open_cluster
    from dask_dedup.storage.objects import scratch_beside

    with ExitStack() as stack:
        opened: list[Execute] = []

        def execute(tasks: Sequence[Any], on_result: OnResult) -> list[Any]:
            if not tasks:
                return []
            if not opened:
                scratch = stack.enter_context(scratch_beside(out / "stages"))
                workers = open_cluster(settings, scratch, out, preload=PRELOAD)
                opened.append(stack.enter_context(workers))
            return opened[0](tasks, on_result)

        yield execute
