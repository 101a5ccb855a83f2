"""Measuring what a plan depends on: the rates of one core, with the run's own kernels."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dask_dedup.cells.assign import assign_cells
from dask_dedup.cells.kmeans import CellModel, train_fine
from dask_dedup.data.parts import gather_rows, read_npy_header
from dask_dedup.errors import OutputError
from dask_dedup.graph.forest import forest_of_edges, spanning_edges
from dask_dedup.graph.stream import stream_merge
from dask_dedup.planning.workload import Rates
from dask_dedup.storage.files import write_frame
from dask_dedup.vectors.cosines import cosine_pairs
from dask_dedup.vectors.int8_codes import PRODUCT, code_product, code_rows, near_pairs
from dask_dedup.vectors.sample import hash_rows
from dask_dedup.vectors.unit import prepare_block

__all__ = ["measure_rates", "measure_together"]

_KEPT = 64
_FOREST_EDGES = 1 << 16


def measure_together(folder: Path, processes: int, seconds: float = 1.0) -> Rates:
    """Measure with all cores busy, as in a run: cores share memory, caches and the clock.

    Parameters
    ----------
    folder, seconds
        As in `measure_rates`.
    processes : int
        As many measure at the same time; the median of each rate counts.

    Raises
    ------
    OutputError
        Where ``folder`` cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="dask-dedup-rates-"):
            pass
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); rates are measured where "
            f"runs will write. Change to a folder that can be."
        ) from error
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        measured = list(pool.map(measure_rates, [folder] * processes, [seconds] * processes))
    medians = {
        name: float(np.median([getattr(rates, name) for rates in measured]))
        for name in asdict(measured[0])
    }
    return Rates(**medians)


def measure_rates(folder: Path, seconds: float = 1.0, rows: int = 16_384, dim: int = 512) -> Rates:
    """Measure this machine, one thread.

    Parameters
    ----------
    folder : Path
        On the file system where the runs' working files will lie; what is written is deleted.
    seconds : float
        For each of some ten measurements.
    rows, dim : int
        Of the made-up embeddings.

    Returns
    -------
    Rates
        What cannot be measured in seconds (start, tasks, Parquet) as shipped.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return replace(_measure_arithmetic(seconds, rows, dim), **_measure_files(folder, seconds))
    finally:
        torch.set_num_threads(threads)


def _measure_arithmetic(seconds: float, rows: int, dim: int) -> Rates:
    random = np.random.default_rng(0)
    stored = random.standard_normal((rows, dim), np.float32).astype(np.float16)
    wide, axes = torch.from_numpy(stored).float(), torch.randn(dim, _KEPT)
    target = torch.empty(rows, _KEPT)
    projection = _typical(lambda: torch.mm(wide, axes, out=target), seconds)

    height, width = PRODUCT
    depth = _KEPT + 4
    codes = random.integers(-127, 128, (max(height, width, 2048), depth)).astype(np.int8)
    left, right = torch.from_numpy(codes[:height]), torch.from_numpy(codes[:width])
    product = _typical(lambda: code_product(left, right), seconds)

    points = random.standard_normal((min(rows, 4096), _KEPT), np.float32)
    cells = max(1, len(points) // 32)
    kmeans = _typical(lambda: train_fine(points, cells, 0), seconds)
    kmeans_flops = 2.0 * 10 * len(points) * cells * _KEPT / kmeans

    filter_ops = 2.0 * height * width * depth / product
    projection_flops = 2.0 * rows * dim * _KEPT / projection
    found_i, found_j = (random.integers(0, rows, 4 * rows) for _ in range(2))
    verified = _typical(lambda: cosine_pairs(wide.numpy(), wide.numpy(), found_i, found_j), seconds)
    keys = random.integers(0, 8192, 16 * rows).astype(np.int32)
    sort = _typical(lambda: np.argsort(keys, kind="stable"), seconds)
    ends = np.sort(random.integers(0, 4 * rows, (2, 2 * rows)), axis=0)
    similarity = random.random(2 * rows, np.float32)
    forest = _typical(lambda: spanning_edges(ends[0], ends[1] + 1, similarity), seconds)
    prepared = _typical(lambda: prepare_block(stored, wide), seconds)
    hashed = _typical(lambda: hash_rows(keys, 0, 0), seconds)
    return Rates(
        projection_flops=projection_flops,
        filter_ops=filter_ops,
        kmeans_flops=kmeans_flops,
        scores=_measure_scores(seconds, rows, projection_flops),
        scanned=_measure_scan(seconds, codes[:2048], filter_ops),
        verified_values=len(found_i) * dim / verified,
        sorted_keys=len(keys) / sort,
        merged_edges=len(similarity) / forest,
        prepared_values=stored.size / prepared,
        hashed_rows=len(keys) / hashed,
    )


def _measure_scan(seconds: float, codes: np.ndarray, filter_ops: float) -> float:
    """Return the pairs a second in a cell of 2,048 entries, less the time of the products."""
    projections = code_rows(codes)
    took = _typical(lambda: list(near_pairs(projections, projections, 0, upper=True)), seconds)
    pairs = len(codes) ** 2 / 2
    return pairs / max(took - 2.0 * codes.shape[1] * pairs / filter_ops, took / 8)


def _measure_scores(seconds: float, rows: int, projection_flops: float) -> float:
    """Return the scores a second of an assignment, less the time of the products."""
    random = np.random.default_rng(1)
    coarse, fine = 64, 64
    centroids = random.standard_normal((coarse, _KEPT), np.float32)
    model = CellModel(
        centroids,
        np.repeat(centroids, fine, axis=0)
        + 0.5 * random.standard_normal((coarse * fine, _KEPT), np.float32),
        np.arange(coarse + 1) * fine,
        np.ones(_KEPT, np.float32),
        np.array([2.0, 0.5]),
        np.array([20.0, 2.0]),
    )
    near = model.fine[random.integers(0, coarse * fine, rows)]
    projection = torch.from_numpy(near + 0.5 * random.standard_normal(near.shape, np.float32))
    took = _typical(lambda: assign_cells(projection, model), seconds) / rows
    limit = model.margins[0] * np.linalg.norm(centroids[:, None] - centroids, axis=2)
    scores = projection.numpy() @ centroids.T - (centroids**2).sum(axis=1) / 2
    gaps = scores.max(axis=1, keepdims=True) - scores
    probes = (gaps <= np.minimum(limit[scores.argmax(axis=1)], model.reaches[0])).sum(axis=1)
    looked_at = coarse + fine * float(probes.clip(1, 32).mean())
    return looked_at / max(took - 2.0 * _KEPT * looked_at / projection_flops, took / 4)


def _measure_files(folder: Path, seconds: float) -> dict[str, float]:
    """Measure files through the page cache: bytes written and read, single rows read."""
    random = np.random.default_rng(2)
    block = random.integers(0, 256, (1 << 15, 1024), np.uint8).view(np.float16)
    with tempfile.TemporaryDirectory(dir=folder, prefix="dask-dedup-rates-") as made:
        path = Path(made) / "rows.npy"
        write = _typical(lambda: np.save(path, block), seconds)
        read = _typical(lambda: path.read_bytes(), seconds)
        file = read_npy_header(str(path))
        positions = np.sort(random.permutation(len(block))[: len(block) // 3])
        single = _typical(lambda: gather_rows(file, positions), seconds)
        forests = [Path(made) / f"forest-{i}.parquet" for i in range(8)]
        for forest in forests:
            src = np.sort(random.integers(0, _FOREST_EDGES, _FOREST_EDGES))
            dst = src + random.integers(1, _FOREST_EDGES, _FOREST_EDGES)
            similarity = random.random(_FOREST_EDGES, np.float32)
            edges = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})
            write_frame(forest, forest_of_edges(edges))
        merged = Path(made) / "merged.parquet"
        counts = stream_merge(forests, 2 * _FOREST_EDGES, merged)
        stream = _typical(lambda: stream_merge(forests, 2 * _FOREST_EDGES, merged), seconds)
    return {
        "streamed_edges": counts["edges_read"] / stream,
        "write_bytes": block.nbytes / write,
        "read_bytes": block.nbytes / read,
        "single_reads": len(positions) / single,
    }


def _typical(work: Callable[[], object], seconds: float) -> float:
    """Return the seconds of a typical call: the median of those that fit, the first one aside."""
    work()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return max(float(np.median(took)), 1e-9)
