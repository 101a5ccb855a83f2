"""What faiss can do by hand, beside the inverted file of full vectors in `rivals.py`.

Each function has the form of `rivals.faiss_ivf_flat`. Where a compressed index proposes the pairs,
`verify` decides them at full dimension in float32.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
from faiss.contrib.big_batch_search import big_batch_search
from results import (
    Result,
    Stopwatch,
    distinct_pairs,
    finish,
    pairs_of_neighbours,
    read_unit_rows,
)
from rivals import ITERATIONS, QUERY_ROWS

TRAINING_ROWS_PER_CELL = 40  # faiss warns below 39
REDUCED_DIM = 64
VERIFIED_PAIRS = 1 << 20  # at a time
SCALAR_SLACK = 0.01  # an 8-bit code is off by less, in cosine
ADC_EPSILON = 1e-6


def _sample(rows: np.ndarray, size: int, seed: int) -> np.ndarray:
    chosen = np.random.default_rng(seed).choice(len(rows), min(len(rows), size), replace=False)
    return rows[np.sort(chosen)]


def trained(key: str, sample: np.ndarray, metric: int) -> faiss.Index:
    """Return an inverted file by its factory key, trained as that of `rivals.faiss_ivf_flat`."""
    index = faiss.index_factory(sample.shape[1], key, metric)
    index.cp.niter = ITERATIONS
    if hasattr(index, "pq"):
        index.pq.cp.niter = ITERATIONS
    index.train(sample)
    return index


def candidates_within(index: faiss.Index, queries: np.ndarray, radius: float) -> pd.DataFrame:
    """Return the pairs, as `Result.pairs`, that a range search of the index's own rows finds."""
    found = []
    for first in range(0, len(queries), QUERY_ROWS):
        block = queries[first : first + QUERY_ROWS]
        limits, score, neighbour = index.range_search(block, radius)
        query = first + np.repeat(np.arange(len(block)), np.diff(limits.astype(np.int64)))
        found.append(distinct_pairs(query, neighbour, score))
    pairs = pd.concat(found, ignore_index=True)
    return distinct_pairs(*(pairs[name].to_numpy() for name in ("src", "dst", "similarity")))


def verify(rows: np.ndarray, pairs: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return those of the pairs whose cosine at full dimension reaches the threshold."""
    src, dst = (np.ascontiguousarray(pairs[name], dtype=np.int64) for name in ("src", "dst"))
    cosine = np.empty(len(pairs), dtype=np.float32)
    for first in range(0, len(pairs), VERIFIED_PAIRS):
        some = slice(first, min(first + VERIFIED_PAIRS, len(pairs)))
        faiss.pairwise_indexed_inner_product(
            rows.shape[1],
            some.stop - first,
            faiss.swig_ptr(rows),
            faiss.swig_ptr(src[some]),
            faiss.swig_ptr(rows),
            faiss.swig_ptr(dst[some]),
            faiss.swig_ptr(cosine[some]),
        )
    keep = cosine >= np.float32(threshold)
    return pairs[keep].assign(similarity=cosine[keep])


def faiss_ivf_sq8(
    folder: str | Path, threshold: float, threads: int, cells: int, probes: int = 2, seed: int = 0
) -> Result:
    """Find duplicates by range search in an inverted file of 8-bit rows; verify what it finds.

    Parameters
    ----------
    folder, threshold, threads, cells, probes, seed
        As in `rivals.faiss_ivf_flat`.
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("train"):
        sample = _sample(rows, TRAINING_ROWS_PER_CELL * cells, seed)
        index = trained(f"IVF{cells},SQ8", sample, faiss.METRIC_INNER_PRODUCT)
    with watch.stage("add"):
        index.add(rows)
    with watch.stage("search"):
        index.nprobe = probes
        candidates = candidates_within(index, rows, threshold - SCALAR_SLACK)
    with watch.stage("verify"):
        pairs = verify(rows, candidates, threshold)
    note = f"range search at {threshold - SCALAR_SLACK:g}, {len(candidates):,} candidates verified"
    return finish(f"faiss IVF{cells},SQ8, {probes} probes", watch, len(rows), pairs, note)


def trained_with_radius(
    sample: np.ndarray, cells: int, codec: str, threshold: float
) -> tuple[faiss.Index, float]:
    """Return an inverted file of a PCA's axes, and the squared radius for a range search in it.

    The squared distance of a pair at the threshold is at most 2 (1 - threshold) in the PCA, too:
    a projection only shortens. A code adds its own squared error on average, and a term of mean 0.
    So the radius is 2 (1 - threshold) plus the mean squared error of a sample's codes; what the
    projection takes off (a third and more, in CLIP's noise) leaves room for the scatter.

    Parameters
    ----------
    sample : numpy.ndarray
        float32, (rows, axes).
    cells : int
    codec : str
        What faiss's factory appends: "PQ32x4fsr" is the 4-bit fast scan of residuals, "Flat" none.
    threshold : float
        Least cosine of a pair.
    """
    index = trained(f"IVF{cells},{codec}", sample, faiss.METRIC_L2)
    decoded = index.sa_decode(index.sa_encode(sample[:QUERY_ROWS]))
    error = float(((decoded - sample[:QUERY_ROWS]) ** 2).sum(axis=1).mean())
    return index, 2 * (1 - threshold) + error


def faiss_pca_ivf(
    folder: str | Path,
    threshold: float,
    threads: int,
    cells: int,
    probes: int = 4,
    seed: int = 0,
    codec: str = "PQ32x4fsr",
) -> Result:
    """Find duplicates by range search in a PCA of 64 axes; verify what it finds.

    Parameters
    ----------
    folder, threshold, threads, cells, probes, seed
        As in `rivals.faiss_ivf_flat`; the cells are those of the 64 axes, hence cheap.
    codec : str
        As in `trained_with_radius`.
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("pca"):
        pca = faiss.PCAMatrix(rows.shape[1], min(REDUCED_DIM, rows.shape[1]))
        pca.train(_sample(rows, 20_000, seed))
        reduced = pca.apply(rows)
    with watch.stage("train"):
        sample = _sample(reduced, TRAINING_ROWS_PER_CELL * cells, seed)
        index, radius = trained_with_radius(sample, cells, codec, threshold)
    with watch.stage("add"):
        index.add(reduced)
    with watch.stage("search"):
        index.nprobe = probes
        candidates = candidates_within(index, reduced, radius)
    with watch.stage("verify"):
        pairs = verify(rows, candidates, threshold)
    note = f"squared radius {radius:.3f}, {len(candidates):,} candidates verified in 512 dimensions"
    note = note.replace("512", str(rows.shape[1]))
    name = f"faiss PCA{reduced.shape[1]},IVF{cells},{codec}, {probes} probes"
    return finish(name, watch, len(rows), pairs, note)


def faiss_hnsw(
    folder: str | Path,
    threshold: float,
    threads: int,
    neighbours: int = 32,
    links: int = 16,
    search_width: int = 64,
) -> Result:
    """Find duplicates among each row's nearest neighbours in a graph (HNSW) of full vectors.

    Parameters
    ----------
    folder, threshold, threads
        As in `rivals.faiss_ivf_flat`.
    neighbours : int
        Asked for each row, itself among them.
    links, search_width : int
        faiss's M and efSearch.
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("add"):
        index = faiss.IndexHNSWFlat(rows.shape[1], links, faiss.METRIC_INNER_PRODUCT)
        index.add(rows)
    with watch.stage("search"):
        index.hnsw.efSearch = search_width
        similarity, neighbour = index.search(rows, neighbours)
        pairs = pairs_of_neighbours(neighbour, similarity, threshold)
    name = f"faiss HNSW{links}, efSearch {search_width}"
    return finish(name, watch, len(rows), pairs, f"the {neighbours} nearest of each row")


def faiss_big_batch(
    folder: str | Path,
    threshold: float,
    threads: int,
    cells: int,
    probes: int = 2,
    seed: int = 0,
    neighbours: int = 32,
) -> Result:
    """Find duplicates among each row's nearest neighbours by `faiss.contrib.big_batch_search`.

    It takes the queries cell by cell, as a join does, and lets matrix products compare them.

    Parameters
    ----------
    folder, threshold, threads, cells, probes, seed
        As in `rivals.faiss_ivf_flat`.
    neighbours : int
        Asked for each row, itself among them.
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("train"):
        sample = _sample(rows, TRAINING_ROWS_PER_CELL * cells, seed)
        index = trained(f"IVF{cells},Flat", sample, faiss.METRIC_INNER_PRODUCT)
    with watch.stage("add"):
        index.add(rows)
    with watch.stage("search"):
        index.nprobe = probes
        with redirect_stdout(StringIO()):  # it prints a line for each cell
            similarity, neighbour = big_batch_search(index, rows, neighbours, threaded=1)
        pairs = pairs_of_neighbours(neighbour, similarity, threshold)
    name = f"faiss big_batch_search, IVF{cells},Flat, {probes} probes"
    return finish(name, watch, len(rows), pairs, f"the {neighbours} nearest of each row")


def semdedup(
    folder: str | Path, threshold: float, threads: int, cells: int, seed: int = 0
) -> Result:
    """Find duplicates by SemDeDup's rule: all pairs of rows in the same k-means cell, no others.

    Abbas et al. 2023, "SemDeDup": 50,000 cells for 440 million rows, 8,800 rows in each.

    Parameters
    ----------
    folder, threshold, threads
        As in `rivals.faiss_ivf_flat`.
    cells : int
        Of a spherical k-means on 256 rows per cell.
    seed : int
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("train"):
        settings = {"niter": ITERATIONS, "spherical": True, "seed": seed + 1}
        kmeans = faiss.Kmeans(rows.shape[1], cells, **settings)
        kmeans.train(_sample(rows, 256 * cells, seed))
    with watch.stage("assign"):
        cell = kmeans.assign(rows)[1]
        order = np.argsort(cell, kind="stable")
        bounds = np.searchsorted(cell[order], np.arange(cells + 1))
    with watch.stage("search"):
        found = [_pairs_inside(rows, order[a:b], threshold) for a, b in pairwise(bounds)]
        pairs = distinct_pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))
    name = f"SemDeDup's rule, {cells} cells"
    note = "pairs inside one cell; exact but for float32 at the border"
    return finish(name, watch, len(rows), pairs, note)


def _pairs_inside(
    rows: np.ndarray, members: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return query, neighbour and similarity of all pairs among the members, each once."""
    found = [(members[:0], members[:0], np.empty(0, dtype=np.float32))]
    inside = rows[members]
    for first in range(0, len(members), 1024):
        product = inside[first : first + 1024] @ inside[first:].T
        query, other = np.nonzero(product >= np.float32(threshold))
        query, other = query[query < other], other[query < other]
        found.append((members[first + query], members[first + other], product[query, other]))
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))


def adaptive_adc(
    folder: str | Path,
    threshold: float,
    threads: int,
    cells: int,
    codes: int,
    tolerance: float = 1.0,
    seed: int = 0,
) -> Result:
    """Find duplicates in compressed vectors alone, by a radius that adapts to each query.

    x is a duplicate of q when d(q, x) <= tolerance * d(q, q') + epsilon: d is the squared L2
    distance between a row and a row's code (ADC), q' the decoded code of q itself. That is our
    reading of "On the De-duplication of LAION-2B" (Webster et al. 2023), whose inequality could
    not be had. Nothing is verified, and the threshold plays no part: precision is below 1.

    Parameters
    ----------
    folder, threads, cells, seed
        As in `rivals.faiss_ivf_flat`; 4 cells are visited, and the 64 nearest of each row asked.
    threshold : float
        Not used.
    codes : int
        Bytes per row: IVF{cells},PQ{codes}.
    tolerance : float
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("train"):
        sample = _sample(rows, max(TRAINING_ROWS_PER_CELL * cells, 20_000), seed)
        index = trained(f"IVF{cells},PQ{codes}", sample, faiss.METRIC_L2)
    with watch.stage("add"):
        index.add(rows)
    with watch.stage("own distance"):
        own = np.empty(len(rows), dtype=np.float32)
        for first in range(0, len(rows), QUERY_ROWS):
            block = rows[first : first + QUERY_ROWS]
            decoded = index.sa_decode(index.sa_encode(block))
            own[first : first + len(block)] = ((block - decoded) ** 2).sum(axis=1)
    with watch.stage("search"):
        index.nprobe = 4
        distance, neighbour = index.search(rows, 64)
        excess = distance - tolerance * own[:, None] - ADC_EPSILON
        pairs = pairs_of_neighbours(neighbour, -excess, 0)
        pairs["similarity"] = np.float32("nan")  # the chain knows none
    name = f"LAION-2B's chain, IVF{cells},PQ{codes}, T {tolerance:g}"
    note = "the 64 nearest of each row, 4 probes; adaptive ADC rule, nothing verified"
    return finish(name, watch, len(rows), pairs, note)
