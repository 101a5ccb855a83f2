"""Starting Dask where the run is to happen; it and the command line alone know a Client."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from dask.delayed import Delayed
from distributed import Client, KilledWorker, LocalCluster, as_completed

from dask_dedup.config import ComputeSettings, memory_per_worker, worker_count
from dask_dedup.errors import CapacityError
from dask_dedup.prefork import (
    start_method,
    start_server,
    without_interrupts,
    worker_environment,
)
from dask_dedup.tasks import OnResult

__all__ = ["ClientExecutor", "local_cluster"]

_TASKS = "dask_dedup.stages"  # what the workers will run


class ClientExecutor:
    """Computes tasks on a distributed client and follows them as they finish.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(self, tasks: Sequence[Delayed], on_result: OnResult) -> list[Any]:
        """Compute all tasks; see `dask_dedup.tasks.Execute`."""
        if not tasks:
            return []
        futures = self.client.compute(list(tasks))
        place = {future.key: i for i, future in enumerate(futures)}
        results: list[Any] = [None] * len(futures)
        try:
            for future, result in as_completed(futures, with_results=True):
                results[place[future.key]] = result
                on_result(result)
        except KilledWorker as error:
            raise CapacityError(
                f"a worker died {error.allowed_failures + 1} times at the same task "
                f"({error.task}), most likely for want of memory. Give each worker more with "
                f"--memory, or use fewer workers."
            ) from error
        finally:
            self.client.cancel(futures)
        return results

    @property
    def dashboard(self) -> str:
        """Address of the dashboard."""
        return str(self.client.dashboard_link)


@contextmanager
def local_cluster(compute: ComputeSettings, scratch: Path) -> Iterator[ClientExecutor]:
    """Run worker processes on this machine, one Dask thread each, until the block ends.

    Parameters
    ----------
    compute : ComputeSettings
    scratch : Path
        Folder for the workers' own files.
    """
    start_server()
    with (
        dask.config.set(
            {
                "distributed.worker.multiprocessing-method": start_method(),
                "distributed.nanny.pre-spawn-environ": worker_environment(compute.threads),
                "distributed.scheduler.no-workers-timeout": "5 minutes",
                "distributed.worker.use-file-locking": False,
                "distributed.worker.preload": [_TASKS],  # imported while the others start
                # What the dashboard shows, at a price that small machines notice.
                "distributed.worker.profile.enabled": False,
                "distributed.admin.system-monitor.interval": "2s",
                "distributed.admin.system-monitor.disk": False,
            }
        ),
        _start_cluster(compute, scratch) as cluster,
        Client(cluster) as client,
    ):
        yield ClientExecutor(client)


def _start_cluster(compute: ComputeSettings, scratch: Path) -> LocalCluster:
    """Start workers that Ctrl-C does not reach, see `dask_dedup.prefork.start_server`.

    Where they are not forks, they inherit the block from the thread that is started here and
    starts them.
    """
    with without_interrupts():
        return LocalCluster(
            n_workers=worker_count(compute),
            threads_per_worker=1,
            memory_limit=memory_per_worker(compute),
            dashboard_address="127.0.0.1:0",
            local_directory=str(scratch),
            silence_logs=logging.CRITICAL,
        )
