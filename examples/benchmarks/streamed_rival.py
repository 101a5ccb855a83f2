"""`more_rivals.faiss_pca_ivf` for data sets whose rows and pairs do not fit into memory.

At 10^7 x 512 the rows take 20 GB as float32, and a range search finds some 10^9 pairs from both
ends. Here the rows stay in float16, a block of queries is searched, its candidates are verified at
once, and what holds goes into the components and is forgotten. The queries come cell by cell, so
that those of a block share most of their candidates. The radius, the cells and their training are
the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch
from more_rivals import REDUCED_DIM, TRAINING_ROWS_PER_CELL, trained_with_radius, verify
from results import READ_ROWS, Result, Stopwatch, distinct_pairs, part_paths, shape_of
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

PCA_ROWS = 20_000
QUERIES = 1 << 12  # at most at a time
VERIFIED_PAIRS = 1 << 19  # at a time, in at most twice as many rows
JOINED_PAIRS = 1 << 23  # pairs that are gathered before components are joined


def faiss_pca_ivf_streamed(
    folder: str | Path,
    threshold: float,
    threads: int,
    cells: int,
    probes: int = 8,
    seed: int = 0,
    codec: str = "PQ32x4fsr",
) -> Result:
    """Find duplicates by range search in a PCA of 64 axes, one block of queries at a time.

    Parameters
    ----------
    folder, threshold, threads, cells, probes, seed, codec
        As in `more_rivals.faiss_pca_ivf`.
    """
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    watch = Stopwatch()
    with watch.stage("read"):
        rows, scale = read_half_rows(folder)
    with watch.stage("pca"):
        pca = faiss.PCAMatrix(rows.shape[1], min(REDUCED_DIM, rows.shape[1]))
        size = min(len(rows), PCA_ROWS)
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), size, replace=False))
        pca.train(unit_rows(rows, scale, torch.from_numpy(chosen)).numpy())
        reduced = np.empty((len(rows), pca.d_out), dtype=np.float32)
        for block in _blocks(len(rows), READ_ROWS):
            reduced[block] = pca.apply(unit_rows(rows, scale, block).numpy())
    with watch.stage("train"):
        size = min(len(rows), TRAINING_ROWS_PER_CELL * cells)
        chosen = np.random.default_rng(seed).choice(len(rows), size, replace=False)
        index, radius = trained_with_radius(reduced[np.sort(chosen)], cells, codec, threshold)
    with watch.stage("add"):
        for block in _blocks(len(rows), READ_ROWS):
            index.add(reduced[block])
    index.nprobe = probes
    order, blocks = queries_by_cell(index)
    labels = np.arange(len(rows))
    gathered: list[pd.DataFrame] = []
    some = []
    candidates = pairs = 0
    for block in blocks:
        with watch.stage("search"):
            limits, score, neighbour = index.range_search(reduced[order[block]], radius)
            query = np.repeat(order[block], np.diff(limits.astype(np.int64)))
            proposed = distinct_pairs(query, neighbour, score)
        with watch.stage("verify"):
            found = verify_half(rows, scale, proposed, threshold)
        candidates, pairs = candidates + len(proposed), pairs + len(found)
        gathered.append(found[["src", "dst"]])
        some.append(found[["src", "dst"]].iloc[:: max(1, len(found) // 64)].copy())  # no view
        if sum(map(len, gathered)) >= JOINED_PAIRS or block.stop >= len(rows):
            with watch.stage("components"):
                join(labels, pd.concat(gathered))
            gathered = []
    note = (
        f"squared radius {radius:.3f}; {candidates:,} candidates verified in {rows.shape[1]} "
        f"dimensions, most from both ends; {pairs:,} hold"
    )
    name = f"faiss PCA{pca.d_out},IVF{cells},{codec}, {probes} probes, streamed"
    return Result(name, watch.seconds, labels, pd.concat(some, ignore_index=True), note)


def queries_by_cell(index: faiss.IndexIVF) -> tuple[np.ndarray, list[slice]]:
    """Return the rows of an inverted file, int64, cell by cell, and blocks of them to search with.

    A query finds the more the larger its cell is: where cells are larger than twice the mean, fewer
    queries than `QUERIES` are in a block.
    """
    lists = index.invlists
    sizes = np.array([lists.list_size(cell) for cell in range(index.nlist)])
    order = np.concatenate(
        [
            faiss.rev_swig_ptr(lists.get_ids(cell), int(size)).copy()
            for cell, size in enumerate(sizes)
        ]
    )
    work = np.cumsum(np.repeat(np.maximum(1, sizes / (2 * sizes.mean())), sizes))
    stops = np.searchsorted(work, np.arange(QUERIES, work[-1], QUERIES))
    edges = [0, *np.unique(stops[stops > 0]).tolist(), len(order)]
    return order, [slice(a, b) for a, b in pairwise(edges)]


def read_half_rows(folder: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all rows as float16, (rows, dim), and one over their lengths, float32, (rows,)."""
    count, dim = shape_of(folder)
    rows = torch.empty((count, dim), dtype=torch.float16)
    scale = torch.empty(count)
    position = 0
    for path in part_paths(folder):
        part = np.load(path, mmap_mode="r")
        for block in _blocks(len(part), READ_ROWS):
            values = torch.from_numpy(np.array(part[block]))
            target = slice(position, position + len(values))
            rows[target] = values
            scale[target] = 1 / torch.linalg.vector_norm(values.float(), dim=1)
            position = target.stop
    return rows, scale


def unit_rows(
    rows: torch.Tensor, scale: torch.Tensor, chosen: slice | torch.Tensor
) -> torch.Tensor:
    """Return some rows at unit length, float32."""
    return rows[chosen].float() * scale[chosen, None]


def verify_half(
    rows: torch.Tensor, scale: torch.Tensor, pairs: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    """Return those of the pairs whose cosine at full dimension reaches the threshold."""
    kept = []
    for block in _blocks(len(pairs), VERIFIED_PAIRS):
        some = pairs.iloc[block]
        chosen, position = np.unique(some[["src", "dst"]].to_numpy(), return_inverse=True)
        local = pd.DataFrame(position.reshape(-1, 2), columns=["src", "dst"])
        values = unit_rows(rows, scale, torch.from_numpy(chosen)).numpy()
        kept.append(some.iloc[verify(values, local, threshold).index])
    return pd.concat([pairs[:0], *kept])


def join(labels: np.ndarray, pairs: pd.DataFrame) -> None:
    """Join the components of `labels` that the pairs connect, in place.

    Parameters
    ----------
    labels : numpy.ndarray
        int64, (rows,): the smallest row_id of each row's component.
    pairs : pandas.DataFrame
        `src`, `dst` int64.
    """
    ends = labels[pairs[["src", "dst"]].to_numpy()]
    ends = ends[ends[:, 0] != ends[:, 1]]
    if not len(ends):
        return
    roots, position = np.unique(ends, return_inverse=True)
    src, dst = position.reshape(-1, 2).T
    shape = (len(roots), len(roots))
    graph = coo_matrix((np.ones(len(src), dtype=bool), (src, dst)), shape=shape)
    count, component = connected_components(graph, directed=False)
    smallest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(smallest, component, roots)
    moved = np.arange(len(labels))
    moved[roots] = smallest[component]
    labels[:] = moved[labels]


def _blocks(rows: int, size: int) -> Iterator[slice]:
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))
