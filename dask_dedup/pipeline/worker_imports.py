"""What worker processes import before their first task, by name: who starts them need not."""

from dask_dedup.runtime.forkserver import Preload

__all__ = ["PRELOAD"]

PRELOAD = Preload(("dask_dedup.pipeline.preloaded",), ("dask_dedup.pipeline.witness_tasks",))
