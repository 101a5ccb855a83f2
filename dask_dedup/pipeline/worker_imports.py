"""What worker processes import before their first task.

The modules are given by name, so that the starting process does not import them.
"""

from dask_dedup.runtime.forkserver import Preload

__all__ = ["PRELOAD"]

PRELOAD = Preload(("dask_dedup.pipeline.preloaded",), ("dask_dedup.pipeline.witness_tasks",))
