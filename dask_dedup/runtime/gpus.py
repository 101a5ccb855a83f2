"""GPUs by Dask's resource ``GPU``: each worker has one, and a task that needs one asks for it.

Without it, all workers of a machine would load their models onto its first GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed import get_worker

from dask_dedup.errors import ClusterError

__all__ = ["GPU", "check_have_gpus", "worker_number"]

#: What a worker with a GPU offers, and what a task that needs one asks for.
GPU: Mapping[str, float] = {"GPU": 1}


def check_have_gpus(workers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ClusterError where no worker offers a GPU: tasks would wait for one for ever.

    Parameters
    ----------
    workers : mapping
        What the scheduler knows of each worker.
    """
    if not any(worker.get("resources", {}).get("GPU", 0) >= 1 for worker in workers.values()):
        raise ClusterError(
            f"none of {len(workers):,} workers offers a GPU. Start one for each GPU with "
            f"CUDA_VISIBLE_DEVICES=N dask worker --nthreads 1 --resources GPU=1, or choose "
            f"--device cpu."
        )


def worker_number() -> int:
    """Return the number of the Dask worker that this is called in; 0 of one that has a name."""
    try:
        name = get_worker().name
    except ValueError:  # no worker
        return 0
    return name if isinstance(name, int) else 0
