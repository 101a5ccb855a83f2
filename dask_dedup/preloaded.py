"""What a worker needs, imported once in the process that workers are forked from: see `prefork`."""

import gc

import distributed.nanny
import distributed.worker  # noqa: F401

import dask_dedup.stages  # noqa: F401

# The collector would touch every object again, in each worker's copy of the memory and at the end.
gc.freeze()
