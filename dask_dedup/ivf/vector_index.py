"""`build_index` and `search_index`: an index folder of a data set, by itself.

``train/base.faiss`` is the trained, empty index, ``shards/shard-*.faiss`` hold the rows with their
global row ids, ``index.json`` describes them and is written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from dask.delayed import Delayed, delayed

from dask_dedup.compressors.base import model_digest
from dask_dedup.data.dataset import Dataset
from dask_dedup.data.part_list import write_parts
from dask_dedup.errors import InputError
from dask_dedup.ivf.faiss_index import Neighbours, search_shards, use_threads
from dask_dedup.ivf.shard_files import IndexLayout, Shard
from dask_dedup.ivf.shards import (
    embed,
    fill_shard,
    group_spans,
    open_base,
    open_shards,
    train_index,
    write_shards,
)
from dask_dedup.ivf.sizes import RESULTS, SHARD_BYTES
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks
from dask_dedup.storage.claim import Claim
from dask_dedup.storage.files import read_json, write_json
from dask_dedup.storage.foreign_content import refuse_other_content
from dask_dedup.storage.objects import remove_file
from dask_dedup.storage.stage import TRAINED, Stage, read_note, write_note
from dask_dedup.vectors.unit import prepare_block

__all__ = ["VectorIndex", "build_index", "open_index", "search_block", "search_index"]

_KIND = "dask_dedup.index.1"
_MANIFEST = "index.json"


@dataclass(frozen=True)
class VectorIndex:
    """An index folder, as its manifest describes it.

    Attributes
    ----------
    folder : str
    factory : str
    metric : str
        ``"squared L2 of unit vectors"``: a distance d is a cosine of 1 - d/2.
    dim : int
        Of the embeddings that were indexed.
    indexed_dim : int
        Behind the model, which is followed by scaling to unit length.
    model, model_digest : str or None
        Path and content of the compressor.
    fingerprint : str
        Of the data set.
    rows, invalid, indexed : int
        ``rows = invalid + indexed``.
    lists : int
        Inverted lists; 0 where there are none.
    bytes_per_row : int
        Code and id of 8 bytes; 0 where faiss does not say.
    overhead_bytes : int
        All files less the codes and ids.
    distance_error : float
        How far a search's distances may lie from those of encode and decode.
    sample_rows : int
        Rows that it was trained on.
    train_seconds, add_seconds : float
        Of the tasks, added up.
    shards : tuple of Shard
    """

    folder: str
    factory: str
    metric: str
    dim: int
    indexed_dim: int
    model: str | None
    model_digest: str | None
    fingerprint: str
    rows: int
    invalid: int
    indexed: int
    lists: int
    bytes_per_row: int
    overhead_bytes: int
    distance_error: float
    sample_rows: int
    train_seconds: float
    add_seconds: float
    shards: tuple[Shard, ...]

    @property
    def layout(self) -> IndexLayout:
        """Where the files lie."""
        return _layout(as_path(self.folder), self.model)


def build_index(
    dataset: Dataset,
    out: str | AnyPath,
    factory: str,
    *,
    model: str | AnyPath | None = None,
    sample_rows: int = 0,
    iterations: int = 0,
    seed: int = 0,
    threads: int = 1,
    train_threads: int = 1,
    span_rows: int = 0,
    shard_bytes: int = SHARD_BYTES,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> VectorIndex:
    """Train an index on a seeded sample and write one shard per group of spans; computes.

    The same call again continues where it was stopped, or returns what is there.

    Parameters
    ----------
    dataset : Dataset
    out : path or URL
        A new or empty folder, or one of an earlier call.
    factory : str
        As faiss names indexes: ``"IVF65536,PQ4"``.
    model : path, optional
        A compressor; its output is scaled to unit length.
    sample_rows : int
        Rows to train on; 0: 64 for each list, 65,536 at least, 2 GB at most.
    iterations : int
        Of the k-means that makes the lists; 0 leaves it to faiss.
    threads : int
        Of each task, in the second stage.
    train_threads : int
        Of the training, which is one task that runs alone.
    span_rows : int
        Of what a shard is put together from: see `dask_dedup.data.spans.cut_spans`.
    shard_bytes : int
        Codes and ids of a shard: what a task builds in memory.

    Raises
    ------
    InputError, SettingsError, OutputError
    """
    folder, progress = as_path(out), progress or NoProgress()
    path = None if model is None else absolute_name(model)
    digest = None if path is None else model_digest(path)
    keys: dict[str, Any] = {
        "factory": factory,
        "model": digest,
        "sample_rows": sample_rows,
        "iterations": iterations,
        "seed": seed,
        "input": dataset.fingerprint,
    }
    check = partial(refuse_other_content, folder, ("train", "shards", _MANIFEST))
    with Claim(folder, check):
        train, fill = Stage(folder / "train", keys), Stage(folder / "shards", keys)
        old = read_json(folder / _MANIFEST)
        if old is not None and old.get("keys") == keys:
            return open_index(folder)
        remove_file(folder / _MANIFEST)
        layout = _layout(folder, path)
        train.prepare()
        details = read_note(train.folder, TRAINED)
        progress.start("train", dataset.rows)
        if details is None:
            details = train_index(
                dataset,
                layout,
                factory,
                sample_rows=sample_rows,
                iterations=iterations,
                seed=seed,
                threads=train_threads,
                execute=execute,
            )
            write_note(train.folder, TRAINED, details, [train.folder / "base.faiss"])
        progress.finish()
        fill.prepare()
        write_parts(dataset.filled_parts, fill.folder / "parts.json", span_rows)
        tasks = {
            name: (layout, name, spans, threads)
            for name, spans in group_spans(layout, details["bytes_per_row"], shard_bytes).items()
        }
        progress.start("shards", dataset.rows)
        records = fill.run(
            fill_shard,
            tasks,
            execute,
            lambda record: progress.advance(record["rows"]),
            lambda record: progress.skip(record["rows"]),
        )
        progress.finish()
        shards = write_shards(layout, records)
        indexed = sum(shard.rows for shard in shards)
        size = details["base_bytes"] + sum(shard.bytes for shard in shards)
        index = VectorIndex(
            folder=str(folder),
            factory=factory,
            metric="squared L2 of unit vectors",
            dim=dataset.dim,
            indexed_dim=details["dim"],
            model=path,
            model_digest=digest,
            fingerprint=dataset.fingerprint,
            rows=dataset.rows,
            invalid=sum(record["invalid"] for record in records),
            indexed=indexed,
            lists=details["lists"],
            bytes_per_row=details["bytes_per_row"],
            overhead_bytes=size - details["bytes_per_row"] * indexed,
            distance_error=details["distance_error"],
            sample_rows=details["sample_rows"],
            train_seconds=details["seconds"],
            add_seconds=sum(record["seconds"] for record in records),
            shards=shards,
        )
        content = asdict(index)
        del content["folder"]  # it may be moved
        write_json(folder / _MANIFEST, {"kind": _KIND, "keys": keys, **content})
    return index


def open_index(path: str | AnyPath) -> VectorIndex:
    """Open an index folder that `build_index` has finished.

    Raises
    ------
    InputError
        There is none, or it was not finished.
    """
    folder = as_path(path)
    content = read_json(folder / _MANIFEST)
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise InputError(
            f"{path}: expected an index folder, but it has no {_MANIFEST} of one. "
            f"Build it with dask-dedup build-index; the same command completes an unfinished one."
        )
    del content["kind"], content["keys"]
    shards = tuple(Shard(**shard) for shard in content.pop("shards"))
    return VectorIndex(folder=str(folder), shards=shards, **content)


def search_block(
    index: VectorIndex, rows: np.ndarray, k: int, nprobe: int = 8, threads: int = 1
) -> Neighbours:
    """Find the k nearest rows to some queries, now.

    Parameters
    ----------
    index : VectorIndex
    rows : float array, shape (n, dim)
        Of any length; an unusable one (NaN, infinite, zero) has no neighbours.
    k : int
        More than there are rows is allowed.
    nprobe : int
        Inverted lists looked into.

    Returns
    -------
    Neighbours

    Raises
    ------
    InputError
        The rows are of another dimension, or a file of the index is missing or damaged.
    """
    if rows.ndim != 2 or rows.shape[1] != index.dim:
        raise InputError(
            f"queries of shape {rows.shape}: expected (queries, {index.dim}), the dimension of "
            f"the embeddings in {index.folder}."
        )
    if index.model and model_digest(index.model) != index.model_digest:
        raise InputError(
            f"{index.model}: has changed since the index {index.folder} was built with it."
        )
    use_threads(threads)
    base, shards = open_base(index.layout), open_shards(index.layout)
    found = Neighbours(
        np.full((len(rows), k), np.inf, np.float32), np.full((len(rows), k), -1, np.int64)
    )
    step = max(1, RESULTS // max(k, index.indexed_dim))
    for start in range(0, len(rows), step):
        vectors = prepare_block(rows[start : start + step])
        usable = start + np.flatnonzero(vectors.reason == 0)
        some = search_shards(base, shards, embed(vectors, index.model), k, nprobe)
        found.distances[usable], found.row_ids[usable] = some
    return found


def search_index(
    index: VectorIndex, queries: np.ndarray | Dataset, k: int, nprobe: int = 8
) -> list[Delayed]:
    """Find the k nearest rows to each query, lazily.

    Parameters
    ----------
    index : VectorIndex
    queries : array of shape (n, dim), or Dataset

    Returns
    -------
    list of Delayed
        `Neighbours`: one for the array, or one for each filled part of the data set.
    """
    if isinstance(queries, Dataset):
        blocks: Sequence[Any] = queries.embeddings.to_delayed().ravel()
    else:
        blocks = [queries]
    return [delayed(search_block)(index, block, k, nprobe) for block in blocks]


def _layout(folder: AnyPath, model: str | None) -> IndexLayout:
    return IndexLayout(str(folder / "train" / "base.faiss"), str(folder / "shards"), model)
