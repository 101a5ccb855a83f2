"""Faiss indexes as the evaluation needs them: filled, measured, searched, and decoded."""

from __future__ import annotations

import faiss
import numpy as np

from dask_dedup.errors import SettingsError
from dask_dedup.ivf.faiss_index import reason, take_apart

__all__ = [
    "add_rows",
    "code_bytes",
    "decode_rows",
    "index_bytes",
    "search_index",
    "search_settings",
]

_BLOCK_ROWS = 8192


def add_rows(index: faiss.Index, rows: np.ndarray, positions: np.ndarray) -> None:
    """Add some rows, a block at a time: the index's i-th row is ``rows[positions[i]]``."""
    for start in range(0, len(positions), _BLOCK_ROWS):
        block = rows[positions[start : start + _BLOCK_ROWS]]
        index.add(np.ascontiguousarray(block, np.float32))


def search_settings(
    index: faiss.Index, nprobe: tuple[int, ...], ef_search: tuple[int, ...]
) -> list[tuple[str, int]]:
    """Return the settings that give a point of the curve each: (name, value).

    ``nprobe`` for an inverted file, up to its lists; ``efSearch`` for a graph; else one ("", 0).
    """
    inner = take_apart(index)[1]
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
            f"an index of this factory cannot encode and decode rows ({reason(error)}). "
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
