"""Rivals that are not faiss, each run by the Python of its own environment (`environments.py`).

Each function has the form of `rivals.faiss_ivf_flat`; the packages are imported inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from results import Result, Stopwatch, distinct_pairs, finish, pairs_of_neighbours, read_unit_rows


def usearch_graph(
    folder: str | Path,
    threshold: float,
    threads: int,
    neighbours: int = 32,
    links: int = 16,
    search_width: int = 64,
) -> Result:
    """Find duplicates among each row's nearest neighbours in usearch's graph (HNSW).

    Parameters
    ----------
    folder, threshold, threads
        As in `rivals.faiss_ivf_flat`.
    neighbours : int
        Asked for each row, itself among them.
    links, search_width : int
        usearch's connectivity and expansion_search; the rows are held as float32.
    """
    from usearch.index import Index

    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("add"):
        index = Index(
            ndim=rows.shape[1],
            metric="ip",
            dtype="f32",
            connectivity=links,
            expansion_search=search_width,
        )
        index.add(np.arange(len(rows)), rows, threads=threads)
    with watch.stage("search"):
        matches = index.search(rows, neighbours, threads=threads)
        pairs = pairs_of_neighbours(matches.keys, 1 - matches.distances, threshold)
    name = f"usearch, connectivity {links}, expansion_search {search_width}"
    return finish(name, watch, len(rows), pairs, f"the {neighbours} nearest of each row, float32")


def pynndescent_graph(
    folder: str | Path, threshold: float, threads: int, neighbours: int = 32, seed: int = 0
) -> Result:
    """Find duplicates among each row's nearest neighbours in the graph that NN-descent ends with.

    Parameters
    ----------
    folder, threshold, threads
        As in `rivals.faiss_ivf_flat`.
    neighbours : int
        Of each row, itself among them.
    seed : int
    """
    from pynndescent import NNDescent

    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("graph"):
        settings: dict[str, Any] = {"n_neighbors": neighbours, "n_jobs": threads}
        index = NNDescent(rows, metric="cosine", random_state=seed, **settings)
        neighbour, distance = index.neighbor_graph
    with watch.stage("search"):
        pairs = pairs_of_neighbours(neighbour, 1 - distance, threshold)
    name = "pynndescent, default settings"
    return finish(
        name, watch, len(rows), pairs, f"its graph of {neighbours} neighbours of each row"
    )


def semhash_embeddings(folder: str | Path, threshold: float, threads: int) -> Result:
    """Find duplicates by `SemHash.from_embeddings` and `self_deduplicate`.

    A record is dropped when one similar to it was kept; every similar record that SemHash names
    makes a pair. Its groups are stars around a kept record, not components: on
    `examples/data/clipart` it drops 3,987 rows where the components leave 4,261 duplicates. It
    looks at 100 neighbours of each. Its index (usearch) takes all cores.

    Parameters
    ----------
    folder, threshold, threads
        As in `rivals.faiss_ivf_flat`.
    """
    from semhash import SemHash

    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("add"):
        records = [str(row) for row in range(len(rows))]
        index = SemHash.from_embeddings(rows, records, model=_Refuse())
    with watch.stage("search"):
        outcome = index.self_deduplicate(threshold=threshold)
        hits = [
            (int(dropped.record), int(other), score)
            for dropped in outcome.filtered
            for other, score in dropped.duplicates
        ]
        query, neighbour, similarity = np.array(hits).reshape(-1, 3).T
        query, neighbour = query.astype(np.int64), neighbour.astype(np.int64)
        pairs = distinct_pairs(query, neighbour, similarity)
    note = "stars around a kept record, not components: compare its duplicates, not its recall"
    return finish("SemHash, from embeddings", watch, len(rows), pairs, note)


class _Refuse:
    """The encoder that SemHash wants and never needs: the embeddings are given."""

    def encode(self, *inputs: Any, **options: Any) -> np.ndarray:
        raise NotImplementedError("the benchmark gives embeddings; nothing is to be encoded")


def autofaiss_index(
    folder: str | Path, threshold: float, threads: int, neighbours: int = 32
) -> Result:
    """Find duplicates among each row's nearest neighbours in the index that autofaiss chooses.

    Parameters
    ----------
    folder, threshold, threads
        As in `rivals.faiss_ivf_flat`.
    neighbours : int
        Asked for each row, itself among them.
    """
    import logging

    import faiss
    from autofaiss import build_index

    watch = Stopwatch()
    with watch.stage("read"):
        rows = read_unit_rows(folder)
    with watch.stage("build"):
        index, chosen = build_index(
            rows,
            save_on_disk=False,
            metric_type="ip",
            max_index_query_time_ms=1.0,  # its default of 10 sets efSearch to 3487: 7 ms a query
            max_index_memory_usage="8G",
            current_memory_available="16G",
            nb_cores=threads,
            verbose=logging.ERROR,
        )
    with watch.stage("search"):
        faiss.omp_set_num_threads(threads)
        similarity, neighbour = index.search(rows, neighbours)
        pairs = pairs_of_neighbours(neighbour, similarity, threshold)
    name = f"autofaiss ({chosen['index_key']}, {chosen['index_param']})"
    return finish(name, watch, len(rows), pairs, f"the {neighbours} nearest of each row")
