"""How the benchmark measures a command, and how it scores the result."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from results import part_paths
from scipy.stats import binomtest

INTERVAL_SECONDS = 0.1
PACKAGES = ("dask_dedup", "dask", "faiss-cpu", "numba", "numpy", "pandas", "scipy", "torch")


def run_measured(command: list[str], threads: int) -> tuple[float, int]:
    """Run a command to its end.

    Parameters
    ----------
    command : list of str
    threads : int
        Given to OpenMP, MKL and OpenBLAS; a tool that sets its own is not hindered.

    Returns
    -------
    (float, int)
        Wall seconds of the process, imports included; peak bytes of the summed resident memory of
        its whole tree, sampled every `INTERVAL_SECONDS`. Shared pages count in each process.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    began = time.perf_counter()
    peak = 0
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _tree_bytes(root))
            time.sleep(INTERVAL_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, peak


def _tree_bytes(root: psutil.Process) -> int:
    total = 0
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:  # it has just ended
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def read_through(folder: Path) -> None:
    """Read all files below a folder once: every contender then finds them in the page cache."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def score(labels: np.ndarray, truth: pd.DataFrame) -> dict[str, Any]:
    """Say how much of the truth of the query rows a grouping unites.

    Parameters
    ----------
    labels : numpy.ndarray
        int64, (rows,).
    truth : pandas.DataFrame
        `query_row`, `row`: all true pairs of the query rows.
    """
    united = labels[truth["query_row"]] == labels[truth["row"]]
    queries = pd.Series(united).groupby(truth["query_row"].to_numpy()).all()
    complete = int(queries.sum())
    interval = binomtest(complete, len(queries)).proportion_ci(0.95, method="exact")
    sizes = np.bincount(np.unique(labels, return_inverse=True)[1])
    return {
        "true_pairs": len(truth),
        "united_pairs": int(united.sum()),
        "pair_recall": float(united.mean()),
        "queries_with_pairs": len(queries),
        "all_united": complete,
        "all_united_share": complete / len(queries),
        "all_united_low": float(interval.low),
        "all_united_high": float(interval.high),
        "duplicates": len(labels) - len(sizes),
        "rows_in_clusters": int(sizes[sizes > 1].sum()),
        "largest_cluster": int(sizes.max()),
    }


def share_in_right_cluster(labels: np.ndarray, true_labels: np.ndarray) -> float:
    """Return the share (0-1) of the rows whose cluster has the true component's rows, no others.

    Parameters
    ----------
    labels, true_labels : numpy.ndarray
        int64, (rows,).
    """
    both = pd.DataFrame({"found": labels, "true": true_labels})
    common = both.groupby(["found", "true"])["true"].transform("size")
    right = common == both.groupby("found")["true"].transform("size")
    right &= common == both.groupby("true")["true"].transform("size")
    return float(right.mean())


def edges_that_hold(folder: str, edges: pd.DataFrame, threshold: float) -> float:
    """Return the share (0-1) of the edges whose cosine reaches the threshold.

    Computed in float64, rounded to float32 and compared so.
    """
    if edges.empty:
        return 1.0
    parts = [np.load(path, mmap_mode="r") for path in part_paths(folder)]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    ids, position = np.unique(edges[["src", "dst"]].to_numpy(), return_inverse=True)
    rows = np.empty((len(ids), parts[0].shape[1]))
    for part, start in zip(parts, starts[:-1], strict=True):
        first, last = np.searchsorted(ids, [start, start + len(part)])
        rows[first:last] = part[ids[first:last] - start]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    left, right = position.reshape(-1, 2).T
    cosine = np.minimum(np.einsum("ij,ij->i", rows[left], rows[right]), 1)
    return float((cosine.astype(np.float32) >= np.float32(threshold)).mean())


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, system and versions."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
