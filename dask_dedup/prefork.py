"""Workers start as forks of one process that has imported what they need.

Importing torch takes seconds of a core. A worker process that is started afresh spends them, and
every worker that replaces a lost one again; a fork has everything at once. The process to fork from
runs no threads of its own, which makes forking safe, and starts while the command still reads its
input.

It imports neither torch nor Dask itself, so that it can be called first of all.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

__all__ = ["start_method", "start_server", "without_interrupts", "worker_environment"]

_PRELOADED = ["dask_dedup.preloaded"]


def start_method() -> str:
    """Return how worker processes start: by forks on Linux; elsewhere libraries forbid them."""
    return "forkserver" if sys.platform == "linux" else "spawn"


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment variables of workers whose kernels run on so many threads."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        # Keep freed blocks of up to 32 MB instead of faulting their pages in again.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    }


def start_server() -> None:
    """Start the process that workers are forked from, unless it runs already; returns at once.

    Ctrl-C does not reach it, nor the workers, nor those that replace a worker later: a terminal
    interrupts all processes of the command, but workers are to end with the cluster, without a
    traceback.

    Its libraries are told of one thread; kernels ask for as many as they are to use.
    """
    if start_method() != "forkserver":
        return
    resource_tracker.ensure_running()  # would lift the block, were it started meanwhile
    forkserver.set_forkserver_preload(_PRELOADED)
    with _environment(worker_environment(1)), without_interrupts():
        forkserver.ensure_running()


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Block Ctrl-C in this thread, and in what it starts, until the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
