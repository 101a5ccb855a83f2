"""Workers start as forks of one process that has imported what they need.

Importing torch takes seconds of a core. A worker process that is started afresh spends them, and
every worker that replaces a lost one again; a fork has everything at once. The process to fork from
runs no threads of its own, which makes forking safe, and starts while the command still reads its
input.

It imports neither torch nor Dask itself, so that it can be called first of all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from typing import NamedTuple

from dask_dedup.errors import ClusterError
from dask_dedup.runtime.caller_script import CALLER, caller_variables
from dask_dedup.runtime.limits import (
    DRIVER_BYTES,
    WORKER_BYTES,
    check_address_space,
    memory_limit,
)

__all__ = [
    "NOTHING",
    "Preload",
    "check_semaphores",
    "environment",
    "start_method",
    "start_server",
    "stop_server",
    "without_interrupts",
    "worker_environment",
]


class Preload(NamedTuple):
    """Modules, by name, that workers need.

    Attributes
    ----------
    forked : tuple of str
        Imported once, in the process that workers of this machine are forked from.
    workers : tuple of str
        Imported by each worker as it starts, wherever it is.
    """

    forked: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()


NOTHING = Preload()


def start_method() -> str:
    """Return how worker processes start: by forks on Linux; elsewhere libraries forbid them."""
    return "forkserver" if sys.platform == "linux" else "spawn"


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment variables of workers whose kernels run on so many threads."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        # Python would look for modules in the current folder first: a data set may hold a dask.py.
        "PYTHONSAFEPATH": "1",
        # Keep freed blocks of up to 32 MB instead of faulting their pages in again.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    }


def start_server(preload: Preload = NOTHING) -> None:
    """Start the process that workers are forked from, unless it runs already; returns at once.

    Ctrl-C does not reach it, nor the workers, nor those that replace a worker later: a terminal
    interrupts all processes of the command, but workers are to end with the cluster, without a
    traceback.

    Its libraries are set to one thread; kernels ask for as many as they are to use.

    The script that has called us is not run again by the workers, as Python otherwise does for
    multiprocessing: tasks name functions of this package only.

    Where its memory is more than there is, it is left alone: a run will be refused in words, but
    the kernel might end the command before.

    Raises
    ------
    CapacityError
        A limit of addresses is below what libraries map.
    ClusterError
        There is no room for its socket; or this process is itself being started to be a worker, and
        runs the script that starts workers.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(
            "a worker process was made to run this script again, as Python does for "
            "multiprocessing where another process to fork from was started before. Put the call "
            'under `if __name__ == "__main__":`.'
        )
    check_address_space()
    if start_method() != "forkserver" or memory_limit() < WORKER_BYTES + DRIVER_BYTES // 2:
        return
    with environment({**worker_environment(1), **caller_variables()}), _temporary_files():
        resource_tracker.ensure_running()  # would lift the block, were it started meanwhile
        forkserver.set_forkserver_preload([CALLER, *preload.forked])
        with without_interrupts():
            forkserver.ensure_running()


def stop_server() -> None:
    """End that process, if it runs: until it has imported all, it would not see that we ended."""
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def check_semaphores() -> None:
    """Refuse a machine on which processes cannot share locks, which a worker's supervisor needs.

    Raises
    ------
    ClusterError
    """
    try:
        multiprocessing.Lock()
    except (ImportError, OSError) as error:
        raise ClusterError(
            f"worker processes need locks of the system, which are files in /dev/shm, and cannot "
            f"have them ({error}). Make /dev/shm a writable tmpfs (a container's --shm-size or "
            f"--tmpfs /dev/shm), or use the workers of another machine with --cluster."
        ) from error


@contextmanager
def _temporary_files() -> Iterator[None]:
    """Say what is missing where no temporary folder takes a socket."""
    try:
        yield
    except OSError as error:
        raise ClusterError(
            f"worker processes cannot be started without a temporary folder ({error}). Set "
            f"TMPDIR to a folder with some room."
        ) from error


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Block Ctrl-C in this thread, and in what it starts, until the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables until the block ends."""
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
