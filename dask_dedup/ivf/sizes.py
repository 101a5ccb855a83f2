"""How much a task of the finder adc takes at a time: what its memory and its time follow from."""

from __future__ import annotations

from math import log2

__all__ = [
    "BLOCK_ROWS",
    "CALIBRATION_K",
    "LEAST_SHARD_ROWS",
    "READ_BYTES",
    "RESULTS",
    "SHARD_BYTES",
    "default_factory",
    "training_rows",
]

BLOCK_ROWS = 16_384  # read and compressed at a time
CALIBRATION_K = 1024  # nearest rows of a sampled query whose truth is looked at
READ_BYTES = 256 << 20  # full rows of one batch of pairs, at 8 bytes a value
RESULTS = 1 << 22  # of one search: 12 bytes each, a few times over
SHARD_BYTES = 256 << 20  # codes and ids of a shard: what one task builds in memory
#: Of several shards: each repeats a query's tables (measured: 60 % of a search).
LEAST_SHARD_ROWS = 262_144

_SAMPLE_PER_LIST = 64
_PCA_DIM = 64
_LEAST_SAMPLE = 65_536
_MOST_SAMPLE_BYTES = 2 << 30  # of float32 rows, in the one task that trains


def default_factory(rows: int, dim: int) -> str:
    """Return the index for so many rows.

    Parameters
    ----------
    rows : int
    dim : int
        Of what is indexed.

    Below 10,000 rows one byte a coordinate and no lists: there is too little to train on. Above,
    a power of two near 4 * sqrt(rows) lists, with 39 rows or more for each (what faiss asks for),
    behind a PCA: 512 dimensions as they are let no fewer candidates through (10,248 and 6,579 real
    images, recall 0.99: 39 a row, 37 behind a PCA to 64), and cost four times as much.
    """
    if rows < 10_000:
        return "SQ8"
    lists = 1 << round(log2(min(4 * rows**0.5, rows / 39)))
    if dim > _PCA_DIM:
        return f"PCA{_PCA_DIM},IVF{lists},PQ16"
    codes = next(count for count in (16, 8, 4, 2, 1) if dim % count == 0)
    return f"IVF{lists},PQ{codes}"


def training_rows(lists: int, dim: int) -> int:
    """Return how many rows of so many dimensions an index of so many lists is trained on."""
    most = _MOST_SAMPLE_BYTES // (4 * dim)
    return min(max(_LEAST_SAMPLE, _SAMPLE_PER_LIST * lists), most)
