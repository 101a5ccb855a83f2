"""Bucket files: rows that have to meet rows of other files, sorted by where they meet.

Each task that has rows writes one parquet file, in which each row group holds rows of one bucket.
Whoever handles a bucket reads its row groups from all files: an external bucket sort, without a
shuffle. Pages carry checksums.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.results.finished_run import open_table
from dask_dedup.storage.checksums import damage

__all__ = ["BucketOut", "bucket_of", "read_bucket"]

_BUCKETS = "buckets"  # note: of each row group its bucket


class BucketOut:
    """A bucket file that is being written.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._buckets: list[int] = []

    def write(self, table: pa.Table, buckets: np.ndarray) -> None:
        """Append rows; ``buckets`` : int array, of each row."""
        if not table.num_rows:
            return
        order = np.argsort(buckets, kind="stable")
        table = table.take(pa.array(order)).combine_chunks()
        found, starts = np.unique(buckets[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        for bucket, start, stop in zip(found.tolist(), starts.tolist(), stops, strict=True):
            rows = stop - start
            self._writer.write_table(table.slice(start, rows), row_group_size=rows)
            self._buckets.append(bucket)

    def __enter__(self) -> BucketOut:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.add_key_value_metadata({_BUCKETS: json.dumps(self._buckets)})
        self._writer.close()


def read_bucket(paths: Iterable[str], bucket: int) -> pa.Table:
    """Return the rows of a bucket from some files, in their order.

    Raises
    ------
    DamagedError
    """
    tables = []
    for path in paths:
        with open_table(path) as file, damage(path):
            buckets = json.loads(file.metadata.metadata[_BUCKETS.encode()])
            if len(buckets) != file.num_row_groups:
                raise ValueError(f"{file.num_row_groups} row groups of {len(buckets)} buckets")
            groups = [i for i, own in enumerate(buckets) if own == bucket]
            tables.append(file.read_row_groups(groups))
    return pa.concat_tables(tables)


def bucket_of(keys: pa.Array, buckets: int) -> np.ndarray:
    """Return the bucket of each key, integers or text: by its hash, the same on every machine."""
    if buckets == 1:
        return np.zeros(len(keys), np.int64)
    if not pa.types.is_integer(keys.type):
        keys = keys.cast(pa.large_binary())  # text from elsewhere need not be UTF-8
    hashes = pd.util.hash_array(keys.to_numpy(zero_copy_only=False), categorize=False)
    return (hashes % np.uint64(buckets)).astype(np.int64)
