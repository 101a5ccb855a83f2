"""Faiss indexes as the evaluation needs them: trained, filled, weighed, searched, and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np

from dask_dedup.errors import SettingsError
from dask_dedup.io.parts import one_line

__all__ = [
    "add_rows",
    "code_bytes",
    "decode_rows",
    "index_bytes",
    "make_index",
    "search_index",
    "search_settings",
    "train_index",
]

_BLOCK_ROWS = 8192


def make_index(dim: int, factory: str) -> faiss.Index:
    """Return the untrained index that a factory string names (squared L2).

    Raises
    ------
    SettingsError
        Faiss refuses the string.
    """
    try:
        return faiss.index_factory(dim, factory)
    except Exception as error:  # of several kinds, all from C++
        raise SettingsError(
            f"factory {factory!r}: faiss cannot make such an index for {dim} dimensions "
            f"({_reason(error)})."
        ) from error


def train_index(
    sample: np.ndarray, factory: str, *, seed: int = 0, threads: int = 1
) -> faiss.Index:
    """Train an empty index on all rows of a sample.

    Parameters
    ----------
    sample : float32 array, shape (n, dim)
    factory : str
        As ``faiss.index_factory`` takes it.
    seed : int
    threads : int
        Stay set for this process; sums over rows may depend on them in the last bit.

    Raises
    ------
    SettingsError
        Faiss refuses the string, or cannot train it on so few rows.
    """
    faiss.omp_set_num_threads(threads)
    index = make_index(sample.shape[1], factory)
    for clustering in _clusterings(index):
        clustering.seed = seed + 1
        clustering.min_points_per_centroid = 1  # silences a warning, changes nothing
        clustering.max_points_per_centroid = max(256, len(sample))
    try:
        index.train(np.ascontiguousarray(sample, np.float32))
    except RuntimeError as error:
        raise SettingsError(
            f"factory {factory!r}: faiss cannot train it on {len(sample)} rows "
            f"({_reason(error)}). Take fewer centroids, or more rows."
        ) from error
    return index


def add_rows(index: faiss.Index, rows: np.ndarray, positions: np.ndarray) -> None:
    """Add some rows, a block at a time: the index's i-th row is ``rows[positions[i]]``."""
    for start in range(0, len(positions), _BLOCK_ROWS):
        block = rows[positions[start : start + _BLOCK_ROWS]]
        index.add(np.ascontiguousarray(block, np.float32))


def search_settings(
    index: faiss.Index, nprobe: tuple[int, ...], ef_search: tuple[int, ...]
) -> list[tuple[str, int]]:
    """Return the settings that are worth a point of the curve: (name, value).

    ``nprobe`` for an inverted file, up to its lists; ``efSearch`` for a graph; else one ("", 0).
    """
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        return [("nprobe", value) for value in sorted({min(v, inner.nlist) for v in nprobe})]
    if isinstance(inner, faiss.IndexHNSW):
        return [("efSearch", value) for value in sorted(set(ef_search))]
    return [("", 0)]


def search_index(
    index: faiss.Index, queries: np.ndarray, k: int, setting: tuple[str, int]
) -> np.ndarray:
    """Search with one of `search_settings`: int64 (n, k), -1 where there are fewer."""
    name, value = setting
    if name:
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    return index.search(queries, k)[1]


def index_bytes(index: faiss.Index) -> int:
    """Return the size of the index's file, which is not written."""
    total = 0

    def count(block: bytes) -> None:
        nonlocal total
        total += len(block)

    writer = faiss.PyCallbackIOWriter(count)  # type: ignore[attr-defined]
    faiss.write_index(index, writer)
    del writer  # flushes
    return total


def code_bytes(index: faiss.Index) -> int:
    """Return the bytes of one row's code, the number of its list included.

    Raises
    ------
    SettingsError
        The index has no codes that stand alone (HNSW as the outermost index has none).
    """
    try:
        return int(index.sa_code_size())
    except RuntimeError as error:
        raise SettingsError(
            f"an index of this factory cannot encode and decode rows ({_reason(error)}). "
            f"Use one whose codes stand alone: IVF with PQ or SQ, PQ, OPQ, SQ."
        ) from error


def decode_rows(index: faiss.Index, rows: np.ndarray) -> np.ndarray:
    """Return what is left of rows when they have been quantized: float32, shape (n, dim).

    Raises
    ------
    SettingsError
        As `code_bytes`.
    """
    code_bytes(index)
    decoded = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.ascontiguousarray(rows[start : start + _BLOCK_ROWS], np.float32)
        decoded[start : start + _BLOCK_ROWS] = index.sa_decode(index.sa_encode(block))
    return decoded


def _clusterings(index: faiss.Index) -> Iterator[faiss.ClusteringParameters]:
    """Yield the settings of every k-means inside an index, and of OPQ's own quantizer."""
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        chain: Any = inner.chain
        for i in range(chain.size()):
            rotation = faiss.downcast_VectorTransform(chain.at(i))
            if isinstance(rotation, faiss.OPQMatrix):  # trains codes of its own while it turns
                codes = faiss.ProductQuantizer(rotation.d_out, rotation.M, 8)
                rotation.pq, rotation.kept_alive = codes, codes  # type: ignore[attr-defined]
                yield codes.cp
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        yield inner.cp
    if isinstance(inner, faiss.IndexHNSW):
        inner = faiss.downcast_index(inner.storage)
    if hasattr(inner, "do_polysemous_training"):
        # Orders the codes for a Hamming filter that is not used: nearly all of the training's time.
        inner.do_polysemous_training = False
    if hasattr(inner, "pq"):
        yield inner.pq.cp


def _reason(error: Exception) -> str:
    """Return the part of a faiss error that a person can use."""
    return one_line(error).rsplit(": ", 1)[-1]
