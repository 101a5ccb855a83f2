"""What connected components cost: the dense parent array, streamed merging, and what else there is.

- random: random edges over many more rows, through `dask_dedup.graph.stream`'s parent array;
- beside scipy: the same at a size that `scipy.sparse.csgraph.connected_components` can hold;
- path: one path through all rows, in random order, its edges as well;
- files: the maximum spanning forest of 1,000 files, by a tree of merges in one process (eight at a
  time, as `dask_dedup.graph.components.merge_tree` does on workers) and streamed.

Each is measured in a process of its own. Memory is the peak of its resident memory less what it had
before. Every answer is compared with another one's, or with what is known of it.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from scoring import describe_machine

from dask_dedup.graph.forest import forest_of_edges, merge_forests
from dask_dedup.graph.labels import label_densely
from dask_dedup.graph.stream import dense_parent, join_edges, stream_merge
from dask_dedup.storage.files import write_frame

CHUNK_EDGES = 10**6
HEADINGS = ("what", "rows", "edges", "seconds", "ns per edge", "peak memory", "bytes per row", "")


def random_chunks(rows: int, edges: int, seed: int) -> Iterator[np.ndarray]:
    """Yield random edges, arrays of shape (2, edges), each chunk from a seed of its own."""
    for chunk, start in enumerate(range(0, edges, CHUNK_EDGES)):
        rng = np.random.default_rng([seed, chunk])
        yield rng.integers(0, rows, (2, min(CHUNK_EDGES, edges - start)), dtype=np.uint32)


def join_random(rows: int, edges: int, seed: int) -> dict[str, Any]:
    """Join random edges; making them is not in the time."""
    began = time.perf_counter()
    parent = dense_parent(rows)
    seconds = making = time.perf_counter() - began
    joined = 0
    for src, dst in random_chunks(rows, edges, seed):
        began = time.perf_counter()
        joined += int(np.count_nonzero(join_edges(parent, src, dst)))
        seconds += time.perf_counter() - began
    note = f"{rows - joined:,} components; {making:.2f} s for the array"
    return {"seconds": seconds, "answer": rows - joined, "note": note}


def scipy_random(rows: int, edges: int, seed: int) -> dict[str, Any]:
    """Count the components of the same edges with scipy."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    src, dst = np.concatenate(list(random_chunks(rows, edges, seed)), axis=1)
    began = time.perf_counter()
    graph = coo_matrix((np.ones(edges, np.int8), (src, dst)), (rows, rows))
    count, _ = connected_components(graph, directed=False)
    return {"seconds": time.perf_counter() - began, "answer": int(count)}


def join_path(rows: int, seed: int) -> dict[str, Any]:
    """Join one path through all rows, its edges in random order."""
    order = np.random.default_rng(seed).permutation(rows).astype(np.uint32)
    shuffled = np.random.default_rng(seed + 1).permutation(rows - 1)
    src, dst = order[:-1][shuffled], order[1:][shuffled]
    del order, shuffled
    began = time.perf_counter()
    joined = int(np.count_nonzero(join_edges(dense_parent(rows), src, dst)))
    return {"seconds": time.perf_counter() - began, "answer": rows - joined}


def write_files(folder: Path, files: int, rows: int, edges: int, seed: int) -> dict[str, Any]:
    """Write forests: clusters around every tenth row, a tenth of the edges of similarity 1."""
    began = time.perf_counter()
    for number in range(files):
        rng = np.random.default_rng([seed, number])
        src = rng.integers(0, rows, edges // files)
        dst = (src - src % 10 + rng.integers(0, 12, len(src))) % rows
        similarity = (0.95 + 0.05 * rng.random(len(src))).astype(np.float32)
        similarity[rng.random(len(src)) < 0.1] = 1
        table = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})
        forest = forest_of_edges(table[table["src"] != table["dst"]])
        write_frame(folder / f"forest-{number:04d}.parquet", forest)
    return {"seconds": time.perf_counter() - began}


def merge_by_tree(folder: Path) -> dict[str, Any]:
    """Merge forests eight at a time, reading a file when it is merged."""
    began = time.perf_counter()
    level: list[Any] = sorted(folder.glob("forest-*.parquet"))
    read = 0
    while len(level) > 1:
        merged = []
        for i in range(0, len(level), 8):
            some = [pd.read_parquet(f) if isinstance(f, Path) else f for f in level[i : i + 8]]
            read += sum(map(len, some)) if isinstance(level[i], Path) else 0
            merged.append(merge_forests(some))
            level[i : i + 8] = [None] * len(some)
        level = merged
    write_frame(folder / "tree.parquet", level[0])
    return {"seconds": time.perf_counter() - began, "edges": read}


def merge_by_stream(folder: Path, rows: int, band_edges: int) -> dict[str, Any]:
    """Merge the same forests streamed."""
    paths = sorted(folder.glob("forest-*.parquet"))
    began = time.perf_counter()
    counts = stream_merge(paths, rows, folder / "stream.parquet", band_edges=band_edges)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "edges": counts["edges_read"],
        "note": f"{counts['bands']} bands; {counts['edges']:,} edges kept",
    }


def label(folder: Path, rows: int) -> dict[str, Any]:
    """Label all rows from the merged forest."""
    began = time.perf_counter()
    labels = label_densely(folder / "stream.parquet", rows, 0.97).cluster_ids
    seconds = time.perf_counter() - began
    edges = pq.ParquetFile(folder / "stream.parquet").metadata.num_rows
    starts = range(0, rows, CHUNK_EDGES)
    pieces = (labels[i : i + CHUNK_EDGES] for i in starts)
    roots = (one == np.arange(i, i + len(one)) for i, one in zip(starts, pieces, strict=True))
    count = sum(int(np.count_nonzero(some)) for some in roots)
    return {"seconds": seconds, "edges": edges, "note": f"{count:,} components at 0.97"}


def digest(path: Path) -> str:
    """Return a digest of a forest that does not depend on its row groups."""
    table = pd.read_parquet(path)
    columns = (table[name].to_numpy().tobytes() for name in table.columns)
    return hashlib.sha256(b"".join(columns)).hexdigest()[:16]


def compile_kernels() -> None:
    """Have what is compiled on its first use compiled."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, 2, 100, 100, 0)
        merge_by_tree(folder)
        merge_by_stream(folder, 100, 10)
        label(folder, 100)


def in_this_process(work: Callable[..., dict[str, Any]], arguments: tuple) -> dict[str, Any]:
    """Do one measurement, after compilation."""
    compile_kernels()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    result = work(*arguments)
    return {**result, "memory_bytes": max(0, peak_memory() - before)}


def peak_memory() -> int:
    """Return the peak of this process; getrusage would give the parent's if that is higher."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def measured(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Do one measurement in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(in_this_process, work, arguments).result()


def table_row(what: str, rows: int, edges: int, result: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    return [
        what,
        f"{rows:,}",
        f"{edges:,}",
        f"{result['seconds']:.2f}",
        f"{1e9 * result['seconds'] / edges:.0f}",
        f"{result['memory_bytes'] / 1e9:.2f} GB",
        f"{result['memory_bytes'] / rows:.1f}",
        result.get("note", ""),
    ]


def agree(what: str, first: Any, second: Any) -> None:
    """Refuse two answers that differ."""
    if first != second:
        raise SystemExit(f"{what}: {first} and {second} differ")


def measurements(options: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Yield the lines of the table, one by one."""
    seed, rows = options.seed, int(options.rows)
    result = measured(join_random, rows, int(options.edges), seed)
    yield table_row("random, parent array", rows, int(options.edges), result)

    small = int(options.small)
    ours, theirs = (measured(work, small, small, seed) for work in (join_random, scipy_random))
    agree("components of random edges", ours["answer"], theirs["answer"])
    yield table_row("random, parent array", small, small, ours)
    yield table_row("random, scipy", small, small, theirs)

    path = measured(join_path, small, seed)
    agree("components of a path", path["answer"], 1)
    yield table_row("path, parent array", small, small - 1, {**path, "note": "1 component"})

    files = options.files
    measured(write_files, folder, files, small, int(options.file_edges), seed)
    tree = measured(merge_by_tree, folder)
    yield table_row(f"{files:,} files, tree", small, tree["edges"], tree)
    for band_edges in map(int, options.band_edges):
        streamed = measured(merge_by_stream, folder, small, band_edges)
        agree("forests", digest(folder / "tree.parquet"), digest(folder / "stream.parquet"))
        what = f"{files:,} files, streamed, {band_edges:,} edges a band"
        yield table_row(what, small, streamed["edges"], streamed)
    labels = measured(label, folder, small)
    yield table_row("labels of all rows", small, labels["edges"], labels)


def write_report(path: Path, lines: list[list[str]]) -> None:
    """Write the table as Markdown."""
    machine = describe_machine()
    used = ", ".join(f"{name} {machine[name]}" for name in ("python", "numba", "numpy", "scipy"))
    text = [
        "# Connected components",
        "",
        "Measured by",
        "",
        "    python examples/benchmarks/components.py --report FILE",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "| --- |" + " ---: |" * (len(HEADINGS) - 2) + " --- |",
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
        "- Peak memory: of the process, less what it had before; the edges are in it where they "
        "are held (scipy, path). Making random edges is not in the seconds.",
        "- The streamed forests equal the tree's bit by bit, the components scipy's in number.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB of memory, {machine['system']}.",
        f"Versions: {used}.",
        "",
    ]
    path.write_text("\n".join(text), encoding="utf-8")


def main() -> None:
    """Measure, print, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--edges", type=float, default=1e8)
    parser.add_argument("--small", type=float, default=1e7, help="rows of all other measurements")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--file-edges", type=float, default=2e7, help="edges in all files together")
    parser.add_argument("--band-edges", type=float, nargs="+", default=[2**25, 2**22])
    parser.add_argument("--work", type=Path, help="folder for the files [default: a temporary one]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="write the table here, as Markdown")
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, 150)
    folder = Path(tempfile.mkdtemp(dir=options.work))
    lines = []
    try:
        for line in measurements(options, folder):
            console.print("  ".join(line), highlight=False)
            lines.append(line)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = Table(box=None, pad_edge=False)
    for name in HEADINGS:
        table.add_column(name, justify="left" if name in ("what", "") else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if options.report:
        write_report(options.report, lines)


if __name__ == "__main__":
    main()
