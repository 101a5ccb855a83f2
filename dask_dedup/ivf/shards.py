"""The index of a data set: one trained base, one shard per group of spans, a manifest.

1. train   a seeded sample over all parts, through the compressor, trains the empty base index.
2. shards  each group of spans: read, compress, encode, add with global row ids; written once.

What goes into the index are rows at unit length; behind a compressor they are brought to unit
length again, so that a squared distance d is a cosine of 1 - d/2 there. Rows without a usable
embedding are left out and counted.

Memory of a task: one shard (`SHARD_BYTES` and its base), one block of rows. On disk: the code and
8 bytes of id a row, and the base once per shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from dask.delayed import delayed

from dask_dedup.compressors.base import Compressor, find_model, load_model
from dask_dedup.data.dataset import Dataset
from dask_dedup.data.spans import Span, cut_spans, read_span
from dask_dedup.errors import InputError
from dask_dedup.ivf.faiss_index import (
    add_rows,
    code_bytes,
    distance_error,
    empty_shard,
    list_count,
    open_index_file,
    use_threads,
    write_index_file,
)
from dask_dedup.ivf.shard_files import IndexLayout, Shard
from dask_dedup.ivf.sizes import BLOCK_ROWS, LEAST_SHARD_ROWS, SHARD_BYTES, training_rows
from dask_dedup.ivf.train_base import make_base, train_base
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.runtime.executor import Execute, compute_tasks, ignore_result
from dask_dedup.schema import EDGES
from dask_dedup.storage.files import (
    open_once,
    write_aside,
    write_frame,
    write_json,
)
from dask_dedup.storage.objects import size_of
from dask_dedup.vectors.equal_rows import EqualRows
from dask_dedup.vectors.sample import sample_row_ids, split_rows
from dask_dedup.vectors.unit import UNREADABLE, Block, VectorBlock, prepare_block

__all__ = [
    "embed",
    "fill_shard",
    "group_spans",
    "open_base",
    "open_model",
    "open_shards",
    "train_index",
    "write_shards",
]

_PURPOSE = 8  # of the sample: see vectors.sample


def train_index(
    dataset: Dataset,
    layout: IndexLayout,
    factory: str,
    *,
    sample_rows: int = 0,
    iterations: int = 0,
    seed: int = 0,
    threads: int = 1,
    execute: Execute = compute_tasks,
) -> dict[str, Any]:
    """Train the base index on a seeded sample of all parts and write it; computes.

    Parameters
    ----------
    sample_rows : int
        0: 64 for each list, 65,536 at least, 2 GB at most.
    iterations, threads : int
        Of the k-means; 0 iterations: as faiss has it. Threads do not change the result.

    Returns
    -------
    dict
        ``sample_rows``, ``dim``, ``lists``, ``bytes_per_row``, ``base_bytes``,
        ``distance_error``, ``seconds``.

    Raises
    ------
    InputError, SettingsError
    """
    dim = open_model(layout.model_path).dim_out if layout.model_path else dataset.dim
    lists = list_count(make_base(dim, factory))
    wanted = sample_rows or training_rows(lists, dim)
    chosen = sample_row_ids(dataset.rows, wanted, seed, _PURPOSE)
    blocks = [
        delayed(_read_compressed)(span, ids, layout.model_path)
        for span, ids in split_rows(chosen, cut_spans(dataset.filled_parts))
    ]
    task = delayed(_train)(blocks, factory, iterations, seed, threads, layout.base_path)
    (details,) = execute([task], ignore_result)
    if details is None:
        raise InputError(
            f"{dataset.path}: none of {len(chosen)} sampled embeddings is usable; "
            f"all are zero, NaN or infinite."
        )
    return details


def group_spans(
    layout: IndexLayout, bytes_per_row: int, shard_bytes: int = SHARD_BYTES
) -> dict[str, tuple[Span, ...]]:
    """Return the spans of each shard: neighbours, until a shard is full; a span is not cut.

    The cut depends on the data alone.
    """
    rows = sum(span.rows for span in layout.spans)
    room = shard_bytes // max(bytes_per_row, 1)
    limit = max(1, min(room, max(LEAST_SHARD_ROWS, rows // 16)))
    groups: list[list[Span]] = []
    gathered = limit
    for span in layout.spans:
        if gathered + span.rows > limit:
            groups.append([])
            gathered = 0
        groups[-1].append(span)
        gathered += span.rows
    return {f"shard-{i:05d}": tuple(group) for i, group in enumerate(groups)}


def fill_shard(
    layout: IndexLayout,
    name: str,
    spans: Sequence[Span],
    threads: int = 1,
    collapse: bool = False,
    watch: Callable[[Span, Block], None] | None = None,
) -> dict[str, Any]:
    """Build and write one shard; for each span ``invalid`` and, with ``collapse``, ``linked``.

    Parameters
    ----------
    collapse : bool
        Leave out rows whose bytes an earlier row of their span has; ``linked`` holds the EDGES
        of similarity 1 between the two.
    watch : callable, optional
        Called with each span and `Block` while it is in memory.

    Returns
    -------
    dict
        ``rows = invalid + identical + indexed``; ``bytes``; ``seconds``.
    """
    torch.set_num_threads(threads)
    use_threads(threads)
    began = time.perf_counter()
    shard = empty_shard(open_base(layout))
    counts = {"rows": 0, "invalid": 0, "identical": 0, "indexed": 0}
    for span in spans:
        for key, count in _add_span(layout, span, shard, collapse, watch).items():
            counts[key] += count
    path = layout.shard_path(name)
    with write_aside(path) as temporary:
        write_index_file(shard, temporary)
    if counts["rows"] != counts["invalid"] + counts["identical"] + counts["indexed"]:
        raise AssertionError(f"{name}: rows were lost: {counts}")
    seconds = time.perf_counter() - began
    return {"name": name, **counts, "bytes": size_of(path), "seconds": seconds}


def embed(vectors: VectorBlock, model_path: str | None) -> np.ndarray:
    """Return the usable rows of a block as the index takes them: unit float32, (usable, dim)."""
    units = vectors.units().numpy()
    if model_path is None or not len(units):
        return units
    compressed = np.asarray(open_model(model_path).transform(units), np.float32)
    lengths = np.linalg.norm(compressed, axis=1, keepdims=True)
    return np.divide(compressed, lengths, out=np.zeros_like(compressed), where=lengths > 0)


def open_base(layout: IndexLayout) -> Any:
    """Open the trained, empty index."""
    return open_index_file(layout.base_path, mapped=False)


def write_shards(layout: IndexLayout, records: Sequence[Mapping[str, Any]]) -> tuple[Shard, ...]:
    """Write the list of shards, from what `fill_shard` returned, for the tasks that search."""
    shards = tuple(Shard(r["name"], r["indexed"], r["bytes"]) for r in records)
    write_json(
        as_path(layout.folder) / "shards.json", {"shards": [asdict(shard) for shard in shards]}
    )
    return shards


def open_shards(layout: IndexLayout) -> list[Any]:
    """Open the shards, memory-mapped where faiss can."""
    return [open_index_file(layout.shard_path(s.name), s.bytes) for s in layout.shards]


def open_model(path: str) -> Compressor:
    """Open a compressor once per process."""
    return open_once(_load_beside, find_model(path))


def _load_beside(tensors: AnyPath) -> Compressor:
    return load_model(tensors.parent)


def _add_span(
    layout: IndexLayout,
    span: Span,
    shard: Any,
    collapse: bool,
    watch: Callable[[Span, Block], None] | None,
) -> dict[str, int]:
    """Add one span to a shard, and write what was left out, and why."""
    equals = EqualRows(span) if collapse else None
    reason = np.empty(span.rows, np.uint8)
    first = np.arange(span.rows)
    buffer = torch.empty(min(BLOCK_ROWS, span.rows), span.embeddings.dim)
    for start in range(0, span.rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, span.rows)
        stored = read_span(span, start, stop)
        vectors = prepare_block(stored, buffer)
        usable = vectors.reason == 0
        reason[start:stop] = vectors.reason
        if equals is not None:
            first[start:stop] = equals.look(start, stored, usable)
        kept = np.arange(start, stop) == first[start:stop]
        compressed = embed(vectors, layout.model_path)[kept[usable]]
        add_rows(shard, compressed, span.row_start + start + np.flatnonzero(usable & kept))
        if watch is not None:
            watch(span, Block(span.row_start + start, stored, vectors))
    for part in span.parts:
        if part.embeddings.problem is not None:
            reason[part.row_start - span.row_start : part.row_stop - span.row_start] = UNREADABLE
    invalid, copies = np.flatnonzero(reason), np.flatnonzero(first != np.arange(span.rows))
    write_frame(
        layout.path("invalid", span),
        pd.DataFrame({"row_id": span.row_start + invalid, "reason": reason[invalid]}),
    )
    if collapse:
        links = {"src": span.row_start + first[copies], "dst": span.row_start + copies}
        write_frame(
            layout.path("linked", span),
            pd.DataFrame({**links, "similarity": 1.0}).astype(EDGES.dtypes),
        )
    indexed = span.rows - len(invalid) - len(copies)
    counts = {"invalid": len(invalid), "identical": len(copies), "indexed": indexed}
    return {"rows": span.rows, **counts}


def _read_compressed(span: Span, row_ids: np.ndarray, model_path: str | None) -> np.ndarray:
    """Return the usable ones of some rows as the index takes them."""
    torch.set_num_threads(1)
    block = prepare_block(span.embeddings.gather(row_ids))
    return embed(block, model_path)


def _train(
    blocks: list[np.ndarray], factory: str, iterations: int, seed: int, threads: int, path: str
) -> dict[str, Any] | None:
    """Train in one task, so that the index is the same for any parts and workers."""
    began = time.perf_counter()
    sample = np.concatenate(blocks)
    if not len(sample):
        return None
    base = train_base(sample, factory, iterations=iterations, seed=seed, threads=threads)
    use_threads(1)
    with write_aside(as_path(path)) as temporary:
        write_index_file(base, temporary)
    return {
        "sample_rows": len(sample),
        "dim": sample.shape[1],
        "lists": list_count(base),
        "bytes_per_row": code_bytes(base),
        "base_bytes": size_of(path),
        "distance_error": distance_error(base, sample),
        "seconds": time.perf_counter() - began,
    }
