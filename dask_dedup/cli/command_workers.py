"""What a command does around a function of the library: workers, progress, the end by Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dask_dedup.cli.terminal import end_code, end_word
from dask_dedup.paths import AnyPath
from dask_dedup.runtime.forkserver import stop_server

if TYPE_CHECKING:
    from dask_dedup.runtime.executor import Execute, OnResult, Progress
    from dask_dedup.settings.run_settings import Settings

__all__ = ["following", "interruptible", "lazy_workers", "workers_and_progress"]

_CONTINUES = "the same command continues where this stopped"


@contextmanager
def workers_and_progress(
    console: Console,
    settings: Settings,
    out: AnyPath,
    stages: AnyPath | None = None,
    gpus: int | None = None,
) -> Iterator[tuple[Execute, Progress]]:
    """Give what computes and what follows, for a function that Ctrl-C may stop.

    Parameters
    ----------
    console : Console
        Where progress is shown.
    settings, out, stages, gpus
        As of `lazy_workers`.
    """
    with (
        interruptible(console),
        following(console) as progress,
        lazy_workers(settings, out, stages, gpus) as execute,
    ):
        yield execute, progress


@contextmanager
def lazy_workers(
    settings: Settings, out: AnyPath, stages: AnyPath | None = None, gpus: int | None = None
) -> Iterator[Execute]:
    """Give what computes tasks: workers as the settings say, started with the first tasks.

    Parameters
    ----------
    settings : Settings
    out : AnyPath
        Where the output goes; a folder that all workers have to see.
    stages : AnyPath, optional
        Folder of working files: workers of this machine spill into it, if it is local; by default
        into a temporary one.
    gpus : int, optional
        Each task needs a GPU, of which this machine has so many.
    """
    from dask_dedup.pipeline.worker_imports import PRELOAD
    from dask_dedup.runtime.deployment import open_cluster
    from dask_dedup.storage.objects import scratch_beside

    with ExitStack() as stack:
        opened: list[Execute] = []

        def start() -> Execute:
            if stages is None:
                scratch = Path(stack.enter_context(TemporaryDirectory(prefix="dask-dedup-")))
            else:
                scratch = stack.enter_context(scratch_beside(stages))
            return stack.enter_context(
                open_cluster(settings, scratch, out, preload=PRELOAD, gpus=gpus)
            )

        def execute(tasks: Sequence[Any], on_result: OnResult) -> list[Any]:
            if not tasks:
                return []
            if not opened:
                opened.append(start())
            return opened[0](tasks, on_result)

        yield execute


@contextmanager
def following(console: Console) -> Iterator[Progress]:
    """Give a display of progress, closed when the block ends."""
    from dask_dedup.report.progress import choose_progress

    progress = choose_progress(console)
    try:
        yield progress
    finally:
        progress.close()


@contextmanager
def interruptible(console: Console, what: str = _CONTINUES) -> Iterator[None]:
    """End the process where Ctrl-C or SIGTERM ends the block, and say what becomes of the work.

    At once: threads that read may still be at it.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        console.print(f"\n{end_word(stop)}; {what}")
        stop_server()
        os._exit(end_code(stop))
