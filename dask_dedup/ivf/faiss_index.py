"""One faiss index: trained, filled with global row ids, searched. Kernels on arrays.

Any index that a faiss factory string names will do. Of an inverted file (IVF) the queries' lists
are found once and serve all shards; others are searched shard by shard and carry their ids in an
`IndexIDMap2`.

The distance is the squared Euclidean one between a query as it is and a row as the index keeps it
(asymmetric, "ADC"), behind the index's own transforms (OPQ, PCA), of which a PCA shortens it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import faiss
import numpy as np

from dask_dedup.data.parts import one_line
from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.objects import local_copy, words_of

__all__ = [
    "Neighbours",
    "add_rows",
    "code_bytes",
    "distance_error",
    "empty_shard",
    "inside",
    "list_count",
    "merge_neighbours",
    "open_index_file",
    "quantized",
    "reason",
    "search_shards",
    "self_distances",
    "take_apart",
    "use_threads",
    "write_index_file",
]

_ERROR_ROWS, _ERROR_QUERIES = 2048, 256  # of the sample, on which `distance_error` looks
_ERROR_NEIGHBOURS = 8
_ROUNDING = 1e-5  # of squared distances of unit vectors in float32: sums of terms of up to 4


class Neighbours(NamedTuple):
    """Nearest rows of queries: ``distances`` float32 and ``row_ids`` int64, both (n, k).

    By rising distance, then ``row_id``; where there are fewer than k, infinite and -1.
    """

    distances: np.ndarray
    row_ids: np.ndarray


def use_threads(threads: int) -> None:
    """Let faiss use so many threads in this process."""
    faiss.omp_set_num_threads(threads)


def empty_shard(base: faiss.Index) -> faiss.Index:
    """Return a copy of the base index that rows can be added to with ids of their own."""
    shard = _copy(base)
    if isinstance(take_apart(shard)[1], faiss.IndexIVF):
        return shard
    wrapped: Any = faiss.IndexIDMap2(shard)
    wrapped.referenced_objects = [shard]
    return wrapped


def add_rows(shard: faiss.Index, rows: np.ndarray, row_ids: np.ndarray) -> None:
    """Add rows: float32 (n, dim), with int64 ids (n,)."""
    if len(rows):
        shard.add_with_ids(np.ascontiguousarray(rows, np.float32), row_ids.astype(np.int64))


def write_index_file(index: faiss.Index, path: str | os.PathLike) -> None:
    """Write an index as faiss does."""
    faiss.write_index(index, os.fspath(path))


def open_index_file(
    path: str | AnyPath, expected_bytes: int | None = None, *, mapped: bool = True
) -> faiss.Index:
    """Open an index file; a few stay open per process.

    Parameters
    ----------
    path : path
    expected_bytes : int, optional
        What the file must measure: a map of a truncated file would crash.
    mapped : bool
        Leave the codes in the file where faiss can; nothing may be added to such an index, nor to
        a copy of it (faiss ends the process).

    Raises
    ------
    InputError
        The file is missing, truncated, damaged or of another kind.
    """
    try:
        here = local_copy(path)
        status = here.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({words_of(error)}).") from error
    if expected_bytes is not None and status.st_size != expected_bytes:
        raise InputError(
            f"{path}: {status.st_size} bytes, but {expected_bytes} were written. The file is "
            f"damaged; build the index again."
        )
    return _open(os.fspath(here), mapped, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _open(path: str, mapped: bool, size_bytes: int, changed: int) -> faiss.Index:
    try:
        return faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise InputError(
            f"{path}: not an index file that faiss can read ({reason(error)})."
        ) from error


def quantized(base: faiss.Index, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows behind the index's transforms, and what it keeps of them.

    Parameters
    ----------
    rows : float32 array, shape (n, dim)

    Returns
    -------
    compressed, kept : float32 arrays, shape (n, dim behind the transforms)
        ``kept`` is the decoded code: for an IVF the centroid of the row's list and its residual.
    """
    transforms, inner = take_apart(base)
    compressed = _transform(transforms, rows)
    if not len(rows):
        return compressed, compressed
    try:
        return compressed, inner.sa_decode(inner.sa_encode(compressed))
    except RuntimeError:  # no codec of its own: add the rows to an empty copy, and read them
        copy = _copy(inner)
        copy.add(compressed)
        if isinstance(copy, faiss.IndexIVF):
            copy.make_direct_map()
        return compressed, copy.reconstruct_n(0, len(compressed))


def self_distances(base: faiss.Index, rows: np.ndarray) -> np.ndarray:
    """Return the squared distance of each row to its own quantized version: float32, (n,)."""
    compressed, kept = quantized(base, rows)
    return ((compressed.astype(np.float64) - kept) ** 2).sum(axis=1).astype(np.float32)


def distance_error(base: faiss.Index, sample: np.ndarray) -> float:
    """Return how far a search's distances may lie from those of encode and decode.

    Rounding, plus the largest difference seen on a sample: nothing more with PQ or SQ codes;
    4-bit fast-scan rounds its tables to 8 bits.

    Parameters
    ----------
    sample : float32 array, shape (n, dim)
    """
    rows = sample[:_ERROR_ROWS]
    shard = empty_shard(base)
    add_rows(shard, rows, np.arange(len(rows)))
    compressed, kept = quantized(base, rows)
    found = search_shards(base, [shard], rows[:_ERROR_QUERIES], _ERROR_NEIGHBOURS, 8)
    query, position = np.nonzero(found.row_ids >= 0)
    row_ids = found.row_ids[query, position]
    exact = ((compressed[query].astype(np.float64) - kept[row_ids]) ** 2).sum(axis=1)
    seen = np.abs(exact - found.distances[query, position]).max(initial=0.0)
    return float(_ROUNDING + 1.5 * seen if seen > _ROUNDING else _ROUNDING)


def search_shards(
    base: faiss.Index, shards: Sequence[faiss.Index], rows: np.ndarray, k: int, nprobe: int
) -> Neighbours:
    """Find the k nearest rows of all shards to each query.

    Parameters
    ----------
    base : faiss.Index
        The trained index, whose coarse quantizer picks the lists.
    shards : sequence of faiss.Index
    rows : float32 array, shape (n, dim)
    k : int
        More than there are rows is allowed.
    nprobe : int
        Inverted lists looked into; nothing where there are none.
    """
    best = Neighbours(
        np.full((len(rows), k), np.inf, np.float32), np.full((len(rows), k), -1, np.int64)
    )
    if not len(rows):
        return best
    transforms, inner = take_apart(base)
    probed: dict[str, Any] = {}
    if isinstance(inner, faiss.IndexIVF):
        rows = _transform(transforms, rows)
        nprobe = min(nprobe, inner.nlist)
        with _exploring(inner.quantizer, nprobe):
            probed["Dq"], probed["Iq"] = inner.quantizer.search(rows, nprobe)
    for shard in shards:
        if not shard.ntotal:
            continue
        # More than there are would cost memory and, in some kinds, raise.
        wanted = min(k, shard.ntotal)
        if probed:
            lists = take_apart(shard)[1]
            lists.nprobe = nprobe  # fast-scan looks here as well
            distances, row_ids = lists.search_preassigned(rows, wanted, **probed)
        else:
            with _exploring(shard, wanted, nprobe):
                distances, row_ids = shard.search(np.ascontiguousarray(rows), wanted)
        best = merge_neighbours(best, Neighbours(distances, row_ids))
    return best


def merge_neighbours(one: Neighbours, other: Neighbours) -> Neighbours:
    """Return as many of both as ``one`` holds, by rising distance, then ``row_id``."""
    distances = np.concatenate([one.distances, other.distances], axis=1)
    row_ids = np.concatenate([one.row_ids, other.row_ids], axis=1)
    distances[row_ids < 0] = np.inf
    order = np.lexsort((row_ids, distances), axis=1)[:, : one.row_ids.shape[1]]
    return Neighbours(
        np.take_along_axis(distances, order, axis=1), np.take_along_axis(row_ids, order, axis=1)
    )


def code_bytes(base: faiss.Index) -> int:
    """Return the bytes that one row takes in a shard, its id of 8 bytes included; 0: unknown."""
    inner = take_apart(base)[1]
    try:
        size = int(getattr(inner, "code_size", 0) or inner.sa_code_size())
    except RuntimeError:
        return 0
    return size + 8


def list_count(base: faiss.Index) -> int:
    """Return the number of inverted lists; 0 where there are none."""
    inner = take_apart(base)[1]
    return int(inner.nlist) if isinstance(inner, faiss.IndexIVF) else 0


def take_apart(index: Any) -> tuple[list[Any], Any]:
    """Return the transforms before an index, and the index behind them."""
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexPreTransform):
        return [], index
    vectors: Any = index.chain  # a C++ vector, whatever faiss's own type hints say
    chain = [faiss.downcast_VectorTransform(vectors.at(i)) for i in range(vectors.size())]
    return chain, faiss.downcast_index(index.index)


def _copy(index: faiss.Index) -> Any:
    """Return a copy; faiss's own clone refuses some transforms."""
    return faiss.deserialize_index(faiss.serialize_index(index))


def _transform(transforms: Sequence[Any], rows: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(rows, np.float32)
    for transform in transforms:
        rows = transform.apply(rows)
    return rows


@contextmanager
def _exploring(index: Any, k: int, nprobe: int = 1) -> Iterator[None]:
    """Let a graph keep as many candidates as are asked for, and an IVF look into more lists."""
    inner = inside(index)
    graph = getattr(inner, "hnsw", None)
    if isinstance(inner, faiss.IndexIVF):
        inner.nprobe = min(nprobe, inner.nlist)
    if graph is None:
        yield
        return
    usual, graph.efSearch = graph.efSearch, max(graph.efSearch, 2 * k)
    try:
        yield
    finally:
        graph.efSearch = usual


def inside(index: Any) -> Any:
    """Return the index that does the work: behind ids, transforms and refinement."""
    index = faiss.downcast_index(index)
    while True:
        if isinstance(index, faiss.IndexIDMap | faiss.IndexPreTransform):
            index = faiss.downcast_index(index.index)
        elif isinstance(index, faiss.IndexRefine):
            index = faiss.downcast_index(index.base_index)
        else:
            return index


def reason(error: Exception) -> str:
    """Return the message of a faiss error without the position in faiss's source."""
    text = one_line(error)
    return text.split(": Error: ")[-1].rsplit(".cpp:", 1)[-1].split(": ", 1)[-1]
