"""Starting Dask where the run is to happen; it and the command line alone know a Client."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from dask_dedup.errors import ClusterError
from dask_dedup.paths import AnyPath, words_of
from dask_dedup.runtime.client_executor import CONNECT_SECONDS, ClientExecutor
from dask_dedup.runtime.forkserver import (
    NOTHING,
    Preload,
    check_semaphores,
    environment,
    start_method,
    start_server,
    without_interrupts,
    worker_environment,
)
from dask_dedup.runtime.gpus import GPU, check_have_gpus
from dask_dedup.runtime.limits import check_floor, memory_limit
from dask_dedup.runtime.security import HTTP_CLOSER, http_settings, own_security
from dask_dedup.runtime.shares import memory_per_worker, worker_count
from dask_dedup.runtime.slurm import queue_state, start_slurm
from dask_dedup.runtime.worker_checks import (
    check_same_code,
    check_sees,
    wait_for_worker,
)
from dask_dedup.settings.run_settings import ComputeSettings, DaskClusterSettings, Settings

__all__ = ["local_cluster", "open_cluster", "use_client"]


@contextmanager
def open_cluster(
    settings: Settings,
    scratch: Path,
    out: AnyPath | None = None,
    preload: Preload = NOTHING,
    connect_seconds: float = CONNECT_SECONDS,
    gpus: int | None = None,
) -> Iterator[ClientExecutor]:
    """Have workers where ``[cluster]`` says, until the block ends.

    Parameters
    ----------
    settings : Settings
    scratch : Path
        Folder for the files of workers on this machine.
    out : AnyPath, optional
        What the workers write into or beside; checked to be one folder for all of them.
    preload : Preload
        What workers import as they start; those of a scheduler that runs already do not.
    connect_seconds : float
        How long to try to reach a scheduler that runs already, at first and when it is lost.
    gpus : int, optional
        Each task needs a GPU, of which this machine has so many; None: none needs one.

    Raises
    ------
    ClusterError
        Workers cannot be had, or cannot do the work there.
    """
    job = settings.cluster
    resources = None if gpus is None else GPU
    if job.kind == "local":
        with local_cluster(settings.compute, scratch, job, preload=preload, gpus=gpus) as execute:
            yield execute
    elif job.kind == "slurm":
        with start_slurm(settings, preload, resources) as cluster, Client(cluster) as client:
            execute = ClientExecutor(
                client, lambda: queue_state(cluster), job.dashboard, resources=resources
            )
            wait_for_worker(execute, job.minimum_jobs * job.processes, job.wait_minutes * 60)
            check_floor(execute.memory_bytes)
            check_sees(client, out)
            yield execute
    else:
        with _connect(job.kind, connect_seconds) as client:
            yield use_client(client, job, out, connect_seconds, resources)


def use_client(
    client: Client,
    job: DaskClusterSettings | None = None,
    out: AnyPath | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    resources: Mapping[str, float] | None = None,
) -> ClientExecutor:
    """Return what computes on the workers of a scheduler that runs already, once one is there.

    Parameters
    ----------
    client : distributed.Client
    job : DaskClusterSettings, optional
        Says how long to wait for a worker.
    out : AnyPath, optional
        As in `open_cluster`.
    connect_seconds : float
        How long to wait for the scheduler where the connection is lost.
    resources : mapping, optional
        What each task asks for; a worker has to offer it.

    Raises
    ------
    CapacityError, ClusterError
        No worker comes, or they cannot do the work.
    """
    assert client.scheduler is not None
    address = client.scheduler.address
    execute = ClientExecutor(
        client,
        lambda: f"the scheduler at {address} has none",
        connect_seconds=connect_seconds,
        resources=resources,
    )
    wait_for_worker(execute, 1, (job or DaskClusterSettings()).wait_minutes * 60)
    if resources:
        check_have_gpus(execute.workers())
    check_same_code(client)
    check_floor(execute.memory_bytes)
    check_sees(client, out)
    return execute


def _connect(address: str, seconds: float) -> Client:
    """Connect in a thread: Dask waits for ever where a connection is accepted and nothing said."""
    answers: queue.SimpleQueue[Client | Exception] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answers.put(Client(address, timeout=seconds))
        except (OSError, TimeoutError, RuntimeError, TypeError) as error:
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds + 5)
    except queue.Empty:
        answer = TimeoutError("something else listens there")
    if isinstance(answer, Client):
        return answer
    keys = ""
    if address.startswith("tls://"):
        keys = " Its keys are those of Dask's own settings, distributed.comm.tls."
    raise ClusterError(
        f"{address}: no Dask scheduler answers there ({str(answer) or type(answer).__name__}). "
        f"Start one with `dask scheduler`, or see --cluster.{keys}"
    ) from answer


@contextmanager
def local_cluster(
    compute: ComputeSettings,
    scratch: Path,
    job: DaskClusterSettings | None = None,
    preload: Preload = NOTHING,
    gpus: int | None = None,
) -> Iterator[ClientExecutor]:
    """Run worker processes on this machine, one Dask thread each, until the block ends.

    Parameters
    ----------
    compute : ComputeSettings
    scratch : Path
        Folder for the workers' own files.
    job : DaskClusterSettings, optional
        Says whether there is a dashboard, and where it listens.
    preload : Preload
        What workers import as they start.
    gpus : int, optional
        Workers at most, each of which has a GPU.
    """
    if gpus is not None:
        compute = compute.model_copy(update={"workers": min(worker_count(compute), gpus)})
    resources = None if gpus is None else GPU
    job = job or DaskClusterSettings()
    check_floor(memory_per_worker(compute), memory_limit())
    check_semaphores()
    start_server(preload)
    variables = worker_environment(compute.threads)
    with (
        environment(variables),  # Dask sets them here as well, and leaves them
        dask.config.set(
            {
                **http_settings(job.dashboard),
                "distributed.worker.multiprocessing-method": start_method(),
                "distributed.nanny.pre-spawn-environ": variables,
                "distributed.scheduler.no-workers-timeout": "5 minutes",
                "distributed.worker.use-file-locking": False,
                # A paused worker waits for others to take its data; ours hold none, and it would
                # wait for ever. Without memory it ends, is replaced, and its task runs again.
                "distributed.worker.memory.pause": False,
                "distributed.worker.memory.terminate": 1.0,
                "distributed.worker.preload": [*preload.workers, HTTP_CLOSER],
                # What the dashboard shows, at a price that small machines notice.
                "distributed.worker.profile.enabled": False,
                "distributed.admin.system-monitor.interval": "2s",
                "distributed.admin.system-monitor.disk": False,
            }
        ),
        _start_cluster(compute, scratch, job, resources) as cluster,
        Client(cluster) as client,
    ):
        yield ClientExecutor(client, has_dashboard=job.dashboard, resources=resources)


def _start_cluster(
    compute: ComputeSettings,
    scratch: Path,
    job: DaskClusterSettings,
    resources: Mapping[str, float] | None,
) -> LocalCluster:
    """Start workers that Ctrl-C does not reach, see `dask_dedup.runtime.forkserver.start_server`.

    Where they are not forks, they inherit the block from the thread that is started here and
    starts them.
    """
    with without_interrupts():
        try:
            return LocalCluster(
                n_workers=worker_count(compute),
                threads_per_worker=1,
                memory_limit=memory_per_worker(compute),
                dashboard_address=job.listens_at,
                scheduler_kwargs={"dashboard": job.dashboard},
                security=own_security(),
                local_directory=str(scratch),
                resources=dict(resources or {}),
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise _not_started(error) from error


def _not_started(error: BaseException) -> ClusterError:
    """Return what is said of workers that do not start: with Dask's words or those of its cause."""
    cause = error
    while cause.__cause__ is not None:  # Dask repeats its words, of which it may have none
        cause = cause.__cause__
    return ClusterError(
        f"worker processes cannot be started ({words_of(cause)}). Perhaps there is too little "
        f"memory, or a limit of processes, files or addresses is too low (ulimit -a). Where a "
        f"script has started processes of multiprocessing's forkserver before, workers run it "
        f'again: put what it does under `if __name__ == "__main__":`.'
    )
