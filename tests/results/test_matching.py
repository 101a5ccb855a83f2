"""The tasks of matching: batches, counted keys, bits of the rows that are present."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.results.bucket_files import BucketOut, read_bucket
from dask_dedup.results.matching import (
    ALONE,
    DROPPED,
    KEPT,
    KEYLESS,
    Counted,
    DecidedPart,
    gather_verdicts,
    note_present,
    scatter_decisions,
    scatter_keys,
)
from dask_dedup.results.source_files import ParquetFile


def clusters(path, start, witness, keys):
    """A part of clusters whose rows have these witnesses; -1: the row stays."""
    rows = np.arange(start, start + len(witness))
    kept = np.array(witness) < 0
    frame = pd.DataFrame(
        {
            "row_id": rows, "cluster_id": np.where(kept, rows, witness), "cluster_size": 1,
            "is_representative": kept, "similarity_to_representative": np.float32(1), "k": keys,
        }
    )  # fmt: skip
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    return DecidedPart(start // 100, str(path), start, start + len(witness))


@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
def test_scatter_in_batches_loses_no_row(tmp_path, batch_rows):
    rng = np.random.default_rng(0)
    keys = [None if i % 9 == 0 else f"k{i % 40}" for i in range(100)]
    witness = np.where(rng.random(100) < 0.5, rng.integers(0, 200, 100), -1)
    part = clusters(tmp_path / "c.parquet", 100, witness, keys)
    done = scatter_decisions(part, ("k",), 3, tmp_path / "d.parquet", batch_rows=batch_rows)
    assert done == {"rows": 100, "keyless": 12, "has_folder": False}
    pq.write_table(pa.table({"k": keys}), tmp_path / "m.parquet")
    source = ParquetFile(str(tmp_path / "m.parquet"), ("k",))
    keyed = scatter_keys(source, 4, 3, tmp_path / "s.parquet", batch_rows=batch_rows)
    assert keyed == {"rows": 100, "keyless": 12}
    decisions, rows = (
        pa.concat_tables([read_bucket([str(tmp_path / f"{n}.parquet")], b) for b in range(3)])
        .to_pandas()
        .sort_values(by)
        for n, by in (("d", "row_id"), ("s", "position"))
    )
    there = [i for i in range(100) if keys[i] is not None]
    assert decisions["row_id"].tolist() == [100 + i for i in there]
    assert decisions["key"].tolist() == [keys[i] for i in there]
    assert decisions["verdict"].tolist() == [DROPPED if witness[i] >= 0 else KEPT for i in there]
    assert rows["position"].tolist() == there
    assert rows["key"].tolist() == [keys[i] for i in there]
    assert set(rows["file"]) == {4}


def test_scatter_keeps_what_has_no_witness_there(tmp_path):
    rng = np.random.default_rng(1)
    present = rng.random(250) < 0.5
    parts, paths = [], []
    for start in (0, 100, 200):
        stop = min(start + 100, 250)
        parts.append(DecidedPart(start // 100, "", start, stop))
        found = tmp_path / f"found-{start}.parquet"
        with BucketOut(found, pa.schema([("row_id", pa.int64())])) as out:
            rows = np.flatnonzero(present[start:stop]) + start
            out.write(pa.table({"row_id": rows}), np.full(len(rows), start // 100))
        paths.append(str(tmp_path / f"bits-{start}.safetensors"))
        note_present(parts[-1], [str(found)], tmp_path / f"bits-{start}.safetensors")
    witness = np.where(rng.random(50) < 0.8, rng.integers(0, 250, 50), -1)
    part = clusters(tmp_path / "c.parquet", 200, witness, [f"{i}" for i in range(50)])
    scatter_decisions(part, ("k",), 1, tmp_path / "d.parquet", paths)
    found = read_bucket([str(tmp_path / "d.parquet")], 0)["verdict"].to_pylist()
    assert found == [KEPT if w < 0 else DROPPED if present[w] else ALONE for w in witness]


@pytest.mark.parametrize(
    ("samples", "first", "expected"),
    [
        (10_000, 3, ["000030000", "000030001", "000030002"]),
        (2, 0, ["000000", "000001", "000010"]),
        (1, 12, ["00012", "00013", "00014"]),
        (10, 123_456, ["1234560", "1234561", "1234562"]),
    ],
)
def test_counted_keys_are_those_of_img2dataset(samples, first, expected):
    """Its `compute_key`: shard times ten to the digits of a shard's samples, five digits more."""
    assert Counted(first, samples).texts(3).to_pylist() == expected


def test_gather_verdicts_of_rows_without_key_says_so(tmp_path):
    schema = pa.schema([("position", pa.int64()), ("verdict", pa.int8())])
    with BucketOut(tmp_path / "v.parquet", schema) as out:
        own = pa.table({"position": [3, 0], "verdict": [DROPPED, KEPT]}, schema)
        out.write(own, np.array([5, 5]))
    paths = [str(tmp_path / "v.parquet")]
    assert gather_verdicts(5, 4, paths).tolist() == [KEPT, KEYLESS, KEYLESS, DROPPED]
    assert gather_verdicts(6, 2, paths).tolist() == [KEYLESS, KEYLESS]
