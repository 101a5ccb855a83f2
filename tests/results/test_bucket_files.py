"""Bucket files: every row in its bucket, whatever the batches; damage is seen."""

import numpy as np
import pyarrow as pa
import pytest

from dask_dedup.errors import DamagedError
from dask_dedup.results.bucket_files import BucketOut, bucket_of, read_bucket

SCHEMA = pa.schema([("key", pa.large_string()), ("value", pa.int64())])


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_buckets_have_each_row_once_in_order(tmp_path, batch):
    rng = np.random.default_rng(0)
    buckets = rng.integers(0, 5, 100)
    buckets[buckets == 3] = 4  # one is empty
    table = pa.table({"key": [f"k{i}" for i in range(100)], "value": range(100)}, SCHEMA)
    paths = [str(tmp_path / f"{i}.parquet") for i in range(2)]
    for path, rows in zip(paths, (range(60), range(60, 100)), strict=True):
        with BucketOut(path, SCHEMA) as out:
            for start in range(rows.start, rows.stop, batch):
                own = slice(start, min(start + batch, rows.stop))
                out.write(table[own], buckets[own])
    for bucket in range(6):
        found = read_bucket(paths, bucket)
        assert found.schema == SCHEMA
        assert found["value"].to_pylist() == np.flatnonzero(buckets == bucket).tolist()


def test_bucket_of_is_a_function_of_the_key_alone():
    keys = pa.array([f"http://x/{i}" for i in range(1000)], pa.large_string())
    found = bucket_of(keys, 8)
    assert bucket_of(keys[500:], 8).tolist() == found[500:].tolist()
    assert np.bincount(found, minlength=8).min() > 90
    assert bucket_of(keys, 1).tolist() == [0] * 1000


def test_read_bucket_of_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    with BucketOut(path, SCHEMA) as out:
        out.write(pa.table({"key": ["a"] * 50, "value": range(50)}, SCHEMA), np.zeros(50, int))
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"a.parquet: is damaged"):
        read_bucket([str(path)], 0)
