"""Tasks on a distributed client, followed as they finish."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from dask.delayed import Delayed
from distributed import Client, KilledWorker, as_completed
from distributed.scheduler import NoWorkerError

from dask_dedup.errors import CapacityError, ClusterError
from dask_dedup.runtime.executor import OnResult
from dask_dedup.runtime.limits import memory_limit

__all__ = ["CONNECT_SECONDS", "TELL_SECONDS", "ClientExecutor"]

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 20
TELL_SECONDS = 15.0  # between two lines about workers that are waited for


class ClientExecutor:
    """Computes tasks on a distributed client and follows them as they finish.

    Parameters
    ----------
    client : distributed.Client
    state : callable, optional
        Says why there is no worker, while there is none.
    has_dashboard : bool
    connect_seconds : float
        How long the client tries to connect again.
    resources : mapping, optional
        What each task asks for of what workers offer: see `dask_dedup.runtime.gpus`.
    """

    def __init__(
        self,
        client: Client,
        state: Callable[[], str] | None = None,
        has_dashboard: bool = True,
        connect_seconds: float = CONNECT_SECONDS,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        self.client = client
        self.state = state
        self._has_dashboard = has_dashboard
        self._connect_seconds = connect_seconds
        self._resources = dict(resources) if resources else None

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
        futures = self.client.compute(list(left.values()), resources=self._resources)
        position = {future.key: i for future, i in zip(futures, list(left), strict=True)}
        try:
            with self._watched():
                for future, result in as_completed(futures, with_results=True):
                    if isinstance(result, CancelledError):  # which is not raised
                        raise result
                    results[position[future.key]] = result
                    del left[position[future.key]]
                    on_result(result)
        except KilledWorker as error:
            raise CapacityError(
                f"a worker died {error.allowed_failures + 1} times at the same task "
                f"({error.task}), most likely because memory ran out. Give each worker more with "
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
                f"{self._connect_seconds:g} s. The same command continues where this stopped."
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
        while not stop.wait(TELL_SECONDS):
            with suppress(OSError, RuntimeError):  # the client is closing
                if not self.workers():
                    logger.warning("waiting for workers, none is left: %s", self.state())


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
