"""What a worker needs, imported once in the process that workers are forked from: see `prefork`."""

import gc

import distributed.nanny
import distributed.worker  # noqa: F401
import numpy as np

import dask_dedup.stages  # noqa: F401
from dask_dedup.index.equals import hash_words

# The first compiled function that is called takes a fifth of a second, whichever it is.
hash_words(np.zeros((1, 1), np.uint64))
# The collector would touch every object again, in each worker's copy of the memory and at the end.
gc.freeze()
