"""What a worker needs, imported once in the process that workers are forked from.

See `dask_dedup.runtime.forkserver`.
"""

import gc

import distributed.nanny
import distributed.worker  # noqa: F401
import numpy as np

import dask_dedup.pipeline.witness_tasks  # noqa: F401
from dask_dedup.vectors.equal_rows import hash_words

# The first compiled function that is called takes a fifth of a second, whichever it is.
hash_words(np.zeros((1, 1), np.uint64))
# The collector would touch every object again, in each worker's copy of the memory and at the end.
gc.freeze()
