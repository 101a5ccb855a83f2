"""Baselines that run beside dask_dedup on the same files.

Each finder takes a folder with `img_emb/*.npy`, a cosine threshold and a number of threads, and
returns a `Result`. They hold all rows as float32 in memory (4 bytes x rows x dim) and decide in
float32, so that two equal rows can score 0.9999999 and a threshold of 1 misses them.
`exact_pairs_of` holds one block at a time and computes in float64: it can score any of them.

On `examples/data/clipart` (10,248 x 512) with 128 cells, recall of the pairs of `faiss_flat`, whose
pairs are those of `exact_pairs.parquet`, and duplicates (rows minus components):

=========  =======  ============  ============  ============  ==============================
threshold    pairs  1 probe       2 probes      4 probes      duplicates, 1 / 2 / 4 / exact
=========  =======  ============  ============  ============  ==============================
0.90       140,153         0.533         0.851         0.982  5,057 / 5,139 / 5,144 / 5,145
0.95        75,914         0.739         0.968        0.9999  4,211 / 4,259 / 4,261 / 4,261
0.98        35,667         0.906         0.996         1.000  3,328 / 3,370 / 3,371 / 3,371
=========  =======  ============  ============  ============  ==============================
"""

from __future__ import annotations

import argparse
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch
from results import READ_ROWS, Result, Stopwatch, label_components, part_paths, read_unit_rows

QUERY_ROWS = 4096
TRAINING_ROWS_PER_CELL = 64
ITERATIONS = 10  # of k-means; faiss has the same default for inverted files
FLOAT32_SLACK = 1e-5  # a float32 product of unit vectors is off by less than this
DECIDED_PAIRS = 65_536


def search_pairs(index: faiss.Index, rows: np.ndarray, threshold: float) -> pd.DataFrame:
    """Return the pairs that a range search of the index's own rows finds, as `Result.pairs`."""
    # faiss returns what is greater than the radius; here a pair counts when it is at least that.
    radius = np.nextafter(np.float32(threshold), np.float32(-1))
    found = []
    for first in range(0, len(rows), QUERY_ROWS):
        block = rows[first : first + QUERY_ROWS]
        limits, similarity, neighbour = index.range_search(block, float(radius))
        limits = limits.astype(np.int64)  # uint64 from faiss
        query = first + np.repeat(np.arange(len(block)), limits[1:] - limits[:-1])
        keep = query != neighbour
        low, high = np.minimum(query, neighbour)[keep], np.maximum(query, neighbour)[keep]
        # A pair comes from one end or both, since either may miss the other's cell.
        code, position = np.unique(low * len(rows) + high, return_index=True)
        found.append((code, similarity[keep][position]))
    code, position = np.unique(np.concatenate([code for code, _ in found]), return_index=True)
    similarity = np.concatenate([similarity for _, similarity in found])[position]
    src, dst = np.divmod(code, len(rows))
    return pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})


def faiss_ivf_flat(
    folder: str | Path,
    threshold: float,
    threads: int,
    cells: int,
    probes: int = 2,
    seed: int = 0,
    training_rows_per_cell: int = TRAINING_ROWS_PER_CELL,
) -> Result:
    """Find duplicates by range search in an inverted file of full vectors.

    Parameters
    ----------
    folder : str or Path
        Holds `img_emb/*.npy`.
    threshold : float
        Least cosine of a pair, compared in float32.
    threads : int
        OpenMP threads of faiss.
    cells, probes : int
        Inverted lists, and how many of them each query looks into.
    seed : int
        Of the training sample.
    training_rows_per_cell : int
        Its rows per inverted list; faiss asks for 39 or more. k-means runs `ITERATIONS` times.
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("train"):
        size = min(len(rows), training_rows_per_cell * cells)
        sample = np.random.default_rng(seed).choice(len(rows), size, replace=False)
        quantizer = faiss.IndexFlatIP(rows.shape[1])
        index = faiss.IndexIVFFlat(quantizer, rows.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = ITERATIONS
        index.train(rows[np.sort(sample)])
    with watch.stage("add"):
        index.add(rows)
    with watch.stage("search"):
        index.nprobe = probes
        pairs = search_pairs(index, rows, threshold)
    with watch.stage("components"):
        labels = label_components(pairs["src"].to_numpy(), pairs["dst"].to_numpy(), len(rows))
    name = f"faiss IVF{cells},Flat, {probes} probes"
    return Result(name, watch.seconds, labels, pairs, "float32; a pair needs a common probed cell")


def faiss_flat(folder: str | Path, threshold: float, threads: int) -> Result:
    """Find all duplicates by brute force: rows^2 x dim multiplications.

    Parameters
    ----------
    folder, threshold, threads
        As in `faiss_ivf_flat`.
    """
    faiss.omp_set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("add"):
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
    with watch.stage("search"):
        pairs = search_pairs(index, rows, threshold)
    with watch.stage("components"):
        labels = label_components(pairs["src"].to_numpy(), pairs["dst"].to_numpy(), len(rows))
    return Result("faiss Flat", watch.seconds, labels, pairs, "exact but for float32 at the border")


def exact_pairs_of(
    folder: str | Path, query_rows: np.ndarray, threshold: float, threads: int = 1
) -> pd.DataFrame:
    """Return every row at least `threshold` similar to one of the queries, by cosines in float64.

    Parameters
    ----------
    folder : str or Path
        Holds `img_emb/*.npy`.
    query_rows : numpy.ndarray
        int64, (queries,): distinct row_ids.
    threshold : float
        Least cosine; it and the cosines, clipped to 1, are rounded to float32 and then compared.
    threads : int
        Of torch.

    Returns
    -------
    pandas.DataFrame
        `query_row`, `row` int64, `query_row != row`; `similarity` float32. Ordered by both ids; a
        pair of two queries comes in both directions.
    """
    torch.set_num_threads(threads)
    parts = [np.load(path, mmap_mode="r") for path in part_paths(folder)]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    queries = np.empty((len(query_rows), parts[0].shape[1]))
    for part, start in zip(parts, starts[:-1], strict=True):
        inside = (query_rows >= start) & (query_rows < start + len(part))
        queries[inside] = part[query_rows[inside] - start]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    pruning_queries = torch.from_numpy(queries.astype(np.float32)).T
    found = []
    for part, start in zip(parts, starts[:-1], strict=True):
        for first in range(0, len(part), READ_ROWS):
            block = part[first : first + READ_ROWS].astype(np.float64)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            product = torch.from_numpy(block.astype(np.float32)) @ pruning_queries
            hits = torch.nonzero(product >= threshold - FLOAT32_SLACK).numpy()
            for some in np.array_split(hits, len(hits) // DECIDED_PAIRS + 1):
                cosine = np.einsum("ij,ij->i", block[some[:, 0]], queries[some[:, 1]])
                similarity = np.minimum(cosine, 1).astype(np.float32)
                query, row = query_rows[some[:, 1]], start + first + some[:, 0]
                keep = (similarity >= np.float32(threshold)) & (query != row)
                columns = {"query_row": query, "row": row, "similarity": similarity}
                found.append(pd.DataFrame(columns)[keep])
    return pd.concat(found).sort_values(["query_row", "row"], ignore_index=True)


def pair_recall(found: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Return the share of the truth's pairs (`src`, `dst`) that were found, 0-1."""
    return len(truth.merge(found[["src", "dst"]], on=["src", "dst"])) / max(len(truth), 1)


def main() -> None:
    """Compare the inverted file with brute force on one folder."""
    parser = argparse.ArgumentParser(description="faiss IVF-Flat against brute force.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", type=int, default=128)
    parser.add_argument("--probes", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    settings = (arguments.folder, arguments.threshold, arguments.threads)
    truth = faiss_flat(*settings)
    results = [truth]
    results += [faiss_ivf_flat(*settings, arguments.cells, probes) for probes in arguments.probes]
    for result in results:
        assert result.pairs is not None and truth.pairs is not None  # both of these yield pairs
        recall = pair_recall(result.pairs, truth.pairs)
        seconds = "  ".join(f"{stage} {value:.2f}" for stage, value in result.seconds.items())
        print(
            f"{result.name}: {len(result.pairs):,} pairs, recall {recall:.4f}, "
            f"{result.duplicates:,} duplicates; seconds: {seconds}"
        )


if __name__ == "__main__":
    main()
