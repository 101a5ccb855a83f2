"""Neighbours as a table: query, rank, row, distance, and what the row's metadata says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.metadata import empty_table, read_metadata, take_rows
from dask_dedup.data.parts import EmbeddingFile, read_rows
from dask_dedup.errors import InputError
from dask_dedup.ivf.vector_index import VectorIndex, search_block
from dask_dedup.paths import AnyPath
from dask_dedup.runtime.executor import Progress
from dask_dedup.storage.files import write_aside
from dask_dedup.vectors.sample import split_rows

__all__ = ["neighbour_table", "write_neighbours"]

_BLOCK_ROWS = 16_384
_TEXTS = ("url", "caption")


def write_neighbours(
    index: VectorIndex,
    files: Sequence[EmbeddingFile],
    out: AnyPath,
    k: int,
    nprobe: int,
    dataset: Dataset | None,
    threads: int,
    progress: Progress,
) -> int:
    """Search all queries block by block and write one parquet file, complete or not at all.

    Parameters
    ----------
    files : sequence of EmbeddingFile
        The queries; they are numbered over all files.
    dataset : Dataset, optional
        What was indexed: its ``url`` and ``caption`` go into the table.

    Returns
    -------
    int
        Rows written: fewer than k for a query where the lists looked into hold fewer.
    """
    for file in files:
        if file.dim != index.dim:
            raise InputError(
                f"{file.path}: embeddings have dimension {file.dim}, but {index.folder} was "
                f"built from {index.dim}."
            )
    written, first = 0, 0
    progress.start("search", sum(file.rows for file in files))
    writer = None
    with write_aside(out) as temporary:
        try:
            for file in files:
                for start in range(0, max(file.rows, 1), _BLOCK_ROWS):
                    rows = read_rows(file, start, min(start + _BLOCK_ROWS, file.rows))
                    found = search_block(index, rows, k, nprobe, threads)
                    table = neighbour_table(*found, first + start, dataset)
                    if writer is None:
                        writer = pq.ParquetWriter(
                            temporary, table.schema, compression="zstd", write_page_checksum=True
                        )
                    writer.write_table(table)
                    written += table.num_rows
                    progress.advance(len(rows))
                first += file.rows
        finally:
            if writer is not None:
                writer.close()
    progress.finish()
    return written


def neighbour_table(
    distances: np.ndarray, row_ids: np.ndarray, first: int, dataset: Dataset | None
) -> pa.Table:
    """Return one row per query and neighbour: ``query``, ``rank``, ``row_id``, ``distance``.

    Parameters
    ----------
    distances, row_ids : arrays, shape (n, k)
        As `search_block` returns them.
    first : int
        Number of the first query.
    dataset : Dataset, optional
        Adds ``url`` and ``caption``, if it has them; the metadata of each part that has a neighbour
        is read once.
    """
    query, rank = np.nonzero(row_ids >= 0)
    found = row_ids[query, rank]
    table = pa.table(
        {
            "query": first + query.astype(np.int64),
            "rank": rank.astype(np.int32),
            "row_id": found,
            "distance": distances[query, rank],
        }
    )
    if dataset is None:
        return table
    ids, position = np.unique(found, return_inverse=True)
    there = [name for name in _TEXTS if name in dataset.columns.schema.names]
    if not there:  # no metadata
        return table
    columns = dataset.columns.select(there)
    pieces = [
        take_rows(read_metadata(part, columns), pa.array(own - part.row_start))
        for part, own in split_rows(ids, dataset.filled_parts)
    ]
    texts = pa.concat_tables(pieces) if pieces else empty_table(columns)
    texts = take_rows(texts, pa.array(position))
    for name in there:
        table = table.append_column(name, texts.column(name))
    return table
