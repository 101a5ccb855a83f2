"""Starting Dask where the run is to happen; it and the command line alone know a Client."""

from __future__ import annotations

import importlib.metadata
import logging
import queue
import resource
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
from dask.delayed import Delayed
from distributed import Client, KilledWorker, LocalCluster, as_completed
from distributed.scheduler import NoWorkerError

from dask_dedup.errors import CapacityError, ClusterError
from dask_dedup.runtime.executor import OnResult
from dask_dedup.runtime.forkserver import (
    check_semaphores,
    start_method,
    start_server,
    without_interrupts,
    worker_environment,
)
from dask_dedup.runtime.limits import check_floor, memory_limit
from dask_dedup.runtime.security import http_settings, own_security
from dask_dedup.runtime.shares import memory_per_worker, worker_count
from dask_dedup.runtime.slurm import queue_state, start_slurm
from dask_dedup.settings.run_settings import ClusterJobSettings, ComputeSettings, Settings

__all__ = ["ClientExecutor", "local_cluster", "open_cluster"]

logger = logging.getLogger(__name__)

#: What the workers will run, imported while the others start; and what closes their HTTP servers.
_PRELOADS = ["dask_dedup.pipeline.stage_tasks", "dask_dedup.runtime.security"]
_CONNECT_SECONDS = 20
_TELL_SECONDS = 15.0  # between two lines about workers that are waited for


class ClientExecutor:
    """Computes tasks on a distributed client and follows them as they finish.

    Parameters
    ----------
    client : distributed.Client
    state : callable, optional
        Says why there is no worker, while there is none.
    has_dashboard : bool
    """

    def __init__(
        self,
        client: Client,
        state: Callable[[], str] | None = None,
        has_dashboard: bool = True,
    ) -> None:
        self.client = client
        self.state = state
        self._has_dashboard = has_dashboard

    def __call__(self, tasks: Sequence[Delayed], on_result: OnResult) -> list[Any]:
        """Compute all tasks; see `dask_dedup.runtime.executor.Execute`."""
        results: list[Any] = [None] * len(tasks)
        left = dict(enumerate(tasks))
        while left:
            try:
                self._compute(left, results, on_result)
            except CancelledError as error:
                self._wait_for_scheduler(error)
                logger.warning(
                    "the connection to the scheduler was lost and is back: %d tasks are given to "
                    "it again",
                    len(left),
                )
        return results

    def _compute(self, left: dict[int, Delayed], results: list[Any], on_result: OnResult) -> None:
        """Compute what is ``left``; what is done moves from there to the results."""
        futures = self.client.compute(list(left.values()))
        place = {future.key: i for future, i in zip(futures, list(left), strict=True)}
        try:
            with self._watched():
                for future, result in as_completed(futures, with_results=True):
                    if isinstance(result, CancelledError):  # which is not raised
                        raise result
                    results[place[future.key]] = result
                    del left[place[future.key]]
                    on_result(result)
        except KilledWorker as error:
            raise CapacityError(
                f"a worker died {error.allowed_failures + 1} times at the same task "
                f"({error.task}), most likely for want of memory. Give each worker more with "
                f"--memory, or use fewer workers."
            ) from error
        except NoWorkerError as error:
            why = f": {self.state()}" if self.state else ""
            raise ClusterError(
                f"all workers are gone, and none has come back{why}. "
                f"The same command continues where this stopped."
            ) from error
        finally:
            with suppress(OSError, RuntimeError):  # where the scheduler is gone
                self.client.cancel(futures)

    def _wait_for_scheduler(self, error: CancelledError) -> None:
        """Return once the client, which tries by itself, is connected again."""
        while self.client.status == "connecting":
            time.sleep(0.1)
        if self.client.status != "running":
            raise ClusterError(
                f"the connection to the scheduler was lost and did not come back within "
                f"{_CONNECT_SECONDS} s. The same command continues where this stopped."
            ) from error

    @property
    def dashboard(self) -> str:
        """Address of the dashboard; empty where there is none."""
        return str(self.client.dashboard_link) if self._has_dashboard else ""

    def workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of each worker that is there, by its address."""
        known = self.client.scheduler_info(n_workers=-1).get("workers", {})
        return dict(known)  # none while the connection is lost

    @property
    def memory_bytes(self) -> int:
        """What each worker may use; without a limit, its share of its machine's; 0 without any."""
        known = self.workers()
        if all(worker["memory_limit"] for worker in known.values()):
            return min((worker["memory_limit"] for worker in known.values()), default=0)
        hosts = Counter(worker["host"] for worker in known.values())
        machines = self.client.run(memory_limit, workers=list(known))
        return min(
            known[address]["memory_limit"] or limit // hosts[known[address]["host"]]
            for address, limit in machines.items()
        )

    def peak_bytes(self) -> int:
        """Peak memory of the largest of the workers that are there; 0 where none answers.

        By the kernel. `distributed.diagnostics.MemorySampler` knows the sum over all workers, at
        their heartbeats: of two, one with 400 MB for 0.2 s, it saw 448 MB where one had 476.
        """
        try:
            peaks = self.client.run(_peak_bytes, on_error="ignore")
        except (OSError, RuntimeError):  # a worker is lost just now
            return 0
        return max(peaks.values(), default=0)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Say why there is no worker, while there is none in the midst of a run."""
        if self.state is None:
            yield
            return
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()

    def _watch(self, stop: threading.Event) -> None:
        assert self.state is not None
        while not stop.wait(_TELL_SECONDS):
            with suppress(OSError, RuntimeError):  # the client is closing
                if not self.workers():
                    logger.warning("waiting for workers, none is left: %s", self.state())


@contextmanager
def open_cluster(
    settings: Settings, scratch: Path, out: Path | None = None
) -> Iterator[ClientExecutor]:
    """Have workers where ``[cluster]`` says, until the block ends.

    Parameters
    ----------
    settings : Settings
    scratch : Path
        Folder for the files of workers on this machine.
    out : Path, optional
        What the workers write into or beside; checked to be one folder for all of them.

    Raises
    ------
    ClusterError
        Workers cannot be had, or cannot do the work there.
    """
    job = settings.cluster
    if job.kind == "local":
        with local_cluster(settings.compute, scratch, job) as execute:
            yield execute
    elif job.kind == "slurm":
        with start_slurm(settings) as cluster, Client(cluster) as client:
            execute = ClientExecutor(client, lambda: queue_state(cluster), job.dashboard)
            _wait_for_worker(execute, job.minimum_jobs * job.processes, job.wait_minutes * 60)
            check_floor(execute.memory_bytes)
            _check_sees(client, out)
            yield execute
    else:
        with _connect(job.kind) as client:
            execute = ClientExecutor(client, lambda: f"the scheduler at {job.kind} has none")
            _wait_for_worker(execute, 1, job.wait_minutes * 60)
            _check_same_code(client)
            check_floor(execute.memory_bytes)
            _check_sees(client, out)
            yield execute


def _connect(address: str) -> Client:
    """Connect in a thread: Dask waits for ever where a connection is accepted and nothing said."""
    answers: queue.SimpleQueue[Client | Exception] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answers.put(Client(address, timeout=_CONNECT_SECONDS))
        except (OSError, TimeoutError, RuntimeError, TypeError) as error:
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=_CONNECT_SECONDS + 5)
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


def _wait_for_worker(execute: ClientExecutor, wanted: int, seconds: float) -> None:
    """Return once a worker is there; tell now and then why there is none."""
    assert execute.state is not None
    began = told = time.monotonic()
    while not execute.workers():
        now = time.monotonic()
        if execute.client.status == "closed":
            raise ClusterError("the connection to the scheduler was lost and did not come back.")
        if now - began > seconds:
            raise ClusterError(
                f"no worker came within {seconds / 60:g} minutes: {execute.state()}. "
                f"See the jobs' logs; cluster.wait_minutes sets how long to wait."
            )
        if now - told >= min(_TELL_SECONDS, seconds / 2):
            told = now
            logger.info("waiting for workers, 0 of %d: %s", wanted, execute.state())
        time.sleep(0.2)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _check_same_code(client: Client) -> None:
    """Check that the workers run what this process runs."""
    own = importlib.metadata.version("dask_dedup")
    answers = client.run(importlib.metadata.version, "dask_dedup", on_error="return")
    for worker, answer in answers.items():
        if answer != own:
            found = "not installed" if isinstance(answer, Exception) else f"version {answer}"
            raise ClusterError(
                f"{worker}: dask_dedup is {found} there, here it is version {own}. "
                f"Install the same version for every worker."
            )
    try:
        client.get_versions(check=True)
    except ValueError as error:
        raise ClusterError(f"the workers' packages differ from those here.\n{error}") from error
    threads = max(
        worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()
    )
    if threads > 1:
        logger.warning(
            "the workers run %d tasks at once; start them with --nthreads 1: a task takes the "
            "memory of a worker",
            threads,
        )


def _check_sees(client: Client, out: Path | None) -> None:
    """Check that each worker reads and writes in the folder that this process sees."""
    if out is None or "://" in str(out):
        return
    out = out.absolute()
    folder = next(path for path in (out, *out.parents) if path.is_dir())
    token = uuid.uuid4().hex
    asked = folder / f".dask-dedup-{token}"
    try:
        asked.write_text(token, encoding="utf-8")
        answers = client.run(_answer_probe, str(asked), on_error="return")
        for worker, answer in answers.items():
            if isinstance(answer, Exception) or not Path(answer).is_file():
                why = f" ({answer})" if isinstance(answer, Exception) else ""
                raise ClusterError(
                    f"{out}: the worker {worker} does not see the folder {folder} as this machine "
                    f"does{why}. Choose a folder that all nodes share, or --cluster local."
                )
    finally:
        for file in folder.glob(f"{asked.name}*"):
            file.unlink(missing_ok=True)


def _answer_probe(path: str) -> str:
    """Answer, on a worker, what the driver has written; return the path of the answer."""
    asked = Path(path)
    answer = asked.with_name(f"{asked.name}-{uuid.uuid4().hex}")
    answer.write_text(asked.read_text(encoding="utf-8"), encoding="utf-8")
    return str(answer)


@contextmanager
def local_cluster(
    compute: ComputeSettings, scratch: Path, job: ClusterJobSettings | None = None
) -> Iterator[ClientExecutor]:
    """Run worker processes on this machine, one Dask thread each, until the block ends.

    Parameters
    ----------
    compute : ComputeSettings
    scratch : Path
        Folder for the workers' own files.
    job : ClusterJobSettings, optional
        Tells whether there is a dashboard, and where it listens.
    """
    job = job or ClusterJobSettings()
    check_floor(memory_per_worker(compute), memory_limit())
    check_semaphores()
    start_server()
    with (
        dask.config.set(
            {
                **http_settings(job.dashboard),
                "distributed.worker.multiprocessing-method": start_method(),
                "distributed.nanny.pre-spawn-environ": worker_environment(compute.threads),
                "distributed.scheduler.no-workers-timeout": "5 minutes",
                "distributed.worker.use-file-locking": False,
                # A paused worker waits for others to take its data; ours hold none, and it would
                # wait for ever. Without memory it ends, is replaced, and its task runs again.
                "distributed.worker.memory.pause": False,
                "distributed.worker.memory.terminate": 1.0,
                "distributed.worker.preload": _PRELOADS,
                # What the dashboard shows, at a price that small machines notice.
                "distributed.worker.profile.enabled": False,
                "distributed.admin.system-monitor.interval": "2s",
                "distributed.admin.system-monitor.disk": False,
            }
        ),
        _start_cluster(compute, scratch, job) as cluster,
        Client(cluster) as client,
    ):
        yield ClientExecutor(client, has_dashboard=job.dashboard)


def _start_cluster(
    compute: ComputeSettings, scratch: Path, job: ClusterJobSettings
) -> LocalCluster:
    """Start workers that Ctrl-C does not reach, see `dask_dedup.runtime.forkserver.start_server`.

    Where they are not forks, they inherit the block from the thread that is started here and
    starts them.
    """
    with without_interrupts():
        return LocalCluster(
            n_workers=worker_count(compute),
            threads_per_worker=1,
            memory_limit=memory_per_worker(compute),
            dashboard_address=job.listens_at,
            scheduler_kwargs={"dashboard": job.dashboard},
            security=own_security(),
            local_directory=str(scratch),
            silence_logs=logging.CRITICAL,
        )
