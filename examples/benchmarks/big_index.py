"""An index of 2^16 lists over millions of rows: trained, filled and searched once, measured.

Rows are those of `synthetic_rows` at 64 dimensions, written as a data set first (float16: 128 bytes
a row). The whole chain runs as users run it, `build_index` and `search_index` on Dask's local
scheduler with --workers processes, and prints one JSON object: seconds, peak memory, sizes,
and how often a query that is a row of the data finds itself first.

    python examples/benchmarks/big_index.py FOLDER [--rows 3e6] [--factory IVF65536,PQ8]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dask_dedup import build_index, read_dataset
from dask_dedup.data.part_rows import gather_by_row
from dask_dedup.ivf.vector_index import search_block
from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.runtime.deployment import local_cluster
from dask_dedup.runtime.peak_memory import TreeMemory
from dask_dedup.runtime.shares import worker_count
from dask_dedup.settings.run_settings import ComputeSettings
from dask_dedup.vectors.sample import sample_row_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=float, default=3e6)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--parts", type=int, default=6)
    parser.add_argument("--factory", default="IVF65536,PQ8")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--sample-rows", type=int, default=655_360, help="10 for each list")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--nprobe", type=int, default=8)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    data = arguments.folder / "data"
    if not data.is_dir():
        script = Path(__file__).with_name("synthetic.py")
        numbers = {"rows": arguments.rows, "dim": arguments.dim, "parts": arguments.parts}
        options = [text for name, value in numbers.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, script, data, *options], check=True)
    print(json.dumps(measure(data, arguments), indent=2))


def measure(data: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Build the index, search it, and return what that took."""
    dataset = read_dataset(data)
    with TreeMemory() as memory:
        began = time.perf_counter()
        compute = ComputeSettings(workers=arguments.workers)
        with local_cluster(compute, arguments.folder / "dask", preload=PRELOAD) as execute:
            index = build_index(
                dataset,
                arguments.folder / "index",
                arguments.factory,
                sample_rows=arguments.sample_rows,
                iterations=arguments.iterations,
                train_threads=worker_count(compute),
                execute=execute,
            )
        built = time.perf_counter() - began
        ids = sample_row_ids(dataset.rows, arguments.queries, 1, 0)
        queries = gather_by_row(dataset.filled_parts, ids)
        began = time.perf_counter()
        found = search_block(index, queries, 10, arguments.nprobe)
        searched = time.perf_counter() - began
    return {
        "rows": dataset.rows,
        "dim": dataset.dim,
        "factory": index.factory,
        "lists": index.lists,
        "sample_rows": index.sample_rows,
        "iterations": arguments.iterations,
        "train_seconds": round(index.train_seconds, 1),
        "add_seconds": round(index.add_seconds, 1),
        "wall_seconds": round(built, 1),
        "shards": len(index.shards),
        "bytes_per_row": index.bytes_per_row,
        "overhead_bytes": index.overhead_bytes,
        "peak_memory_bytes": memory.peak_bytes,
        "nprobe": arguments.nprobe,
        "queries_per_second": round(len(ids) / searched, 1),
        "itself_first": float((found.row_ids[:, 0] == ids).mean()),
        "itself_in_10": float(np.mean((found.row_ids == ids[:, None]).any(axis=1))),
    }


if __name__ == "__main__":
    main()
