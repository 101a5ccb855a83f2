"""What each worker gets of the machine, where the settings say, and where they do not."""

from __future__ import annotations

from dask_dedup.runtime.limits import DRIVER_BYTES, cpu_count, memory_limit
from dask_dedup.settings.run_settings import ComputeSettings, Settings

__all__ = ["memory_per_worker", "threads_together", "worker_count"]

_MEMORY_SHARE = 0.75  # of the memory that is to be had, for all workers, where none is given


def worker_count(compute: ComputeSettings) -> int:
    """Return the number of worker processes: as set, or one per core and thread asked for."""
    if compute.workers is not None:
        return compute.workers
    return max(1, cpu_count() // compute.threads)


def threads_together(settings: Settings) -> int:
    """Return the threads of the workers that share a machine: a task that runs alone may use them.

    Of a scheduler at an address nothing is known but a worker's own.
    """
    compute, job = settings.compute, settings.cluster
    if job.kind == "local":
        return worker_count(compute) * compute.threads
    if job.kind == "slurm":
        return job.cores or job.processes * compute.threads
    return compute.threads


def memory_per_worker(compute: ComputeSettings) -> int:
    """Return the bytes each worker may use: as set, or its share of three quarters of all.

    All is the machine's memory, or what the container or batch job may use of it; at least what
    the command's own process needs stays free.
    """
    if compute.memory is not None:
        return compute.memory
    limit = memory_limit()
    shared = min(limit * _MEMORY_SHARE, limit - DRIVER_BYTES)
    return max(1, int(shared / worker_count(compute)))
