"""Exported rows in the layout of the input: metadata and embeddings, which are a data set again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.data.embedding_file import EmbeddingFile
from dask_dedup.data.parts import Part, gather_rows, one_line, read_again, read_rows
from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath
from dask_dedup.results.export_tables import ParquetOut
from dask_dedup.results.selected_rows import Choice, OutFile, PieceReader
from dask_dedup.results.sizes import EXPORTED_BYTES
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import open_parquet_source

__all__ = ["FOLDERS", "write_input"]

#: Folders of this layout: metadata, images, texts.
FOLDERS = ("metadata", "img_emb", "text_emb")
_SPARSE = 8  # one row of so many: read singly


def write_input(
    files: Sequence[OutFile],
    folder: AnyPath,
    choice: Choice,
    column_type: pa.DataType | None = None,
    block_bytes: int = EXPORTED_BYTES,
) -> dict[str, int]:
    """Write some files of metadata and of embeddings, one after the other.

    Holds the chosen metadata of one part, and a block of embeddings.

    Parameters
    ----------
    files : sequence of OutFile
        Whose names say which of `FOLDERS` are written; each piece has its part.
    folder : AnyPath
        That these folders are in.
    choice : Choice
    column_type : pyarrow.DataType, optional
        Of the list column that holds the embeddings, where one does.
    block_bytes : int
        Of embeddings in memory.

    Returns
    -------
    dict
        ``rows`` written: JSON.

    Raises
    ------
    UnreadableError
    """
    reader = PieceReader(choice)
    rows = 0
    for file in files:
        with ExitStack() as stack:
            aside = {
                name: stack.enter_context(write_aside(folder / name / own, durable=True))
                for name, own in file.names.items()
            }
            out = stack.enter_context(ParquetOut(aside["metadata"]))
            positions = []
            for piece in file.pieces:
                assert piece.part is not None
                chosen = reader.read(piece)
                positions.append(chosen.positions)
                if piece.part.embeddings.column is None:
                    out.write(chosen.table)
                else:
                    assert column_type is not None
                    _write_with_lists(out, chosen.table, piece.part, chosen.positions, column_type)
                rows += len(chosen.positions)
            for name in FOLDERS[1:]:
                if name in aside:
                    path = aside[name]
                    embeddings = [_embeddings(piece.part, name) for piece in file.pieces]
                    with open(path, "wb") as array:
                        _write_npy(array, embeddings, positions, block_bytes)
    return {"rows": rows}


def _embeddings(part: Part | None, folder: str) -> EmbeddingFile:
    assert part is not None
    if folder == "text_emb" and part.text_embeddings is not None:
        return part.text_embeddings
    return part.embeddings


def _write_npy(
    out: IO[bytes],
    files: Sequence[EmbeddingFile],
    positions: Sequence[np.ndarray],
    block_bytes: int,
) -> None:
    """Write the rows at some positions of some files: their values are not changed."""
    dtype = np.result_type(*(np.dtype(file.dtype).newbyteorder("=") for file in files))
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (sum(map(len, positions)), files[0].dim),
    }
    np.lib.format.write_array_header_1_0(out, header)
    for file, own in zip(files, positions, strict=True):
        for block in _blocks(file, own, block_bytes):
            out.write(block.astype(dtype, copy=False).data.cast("B"))


def _blocks(file: EmbeddingFile, positions: np.ndarray, block_bytes: int) -> Iterator[np.ndarray]:
    """Yield the rows at some positions: read in one pass where they lie close together."""
    step = max(1, block_bytes // (file.dim * np.dtype(file.dtype).itemsize))
    for start in range(0, file.rows, step):
        stop = min(start + step, file.rows)
        first, last = np.searchsorted(positions, [start, stop])
        own = positions[first:last]
        if not len(own):
            continue
        if len(own) * _SPARSE < stop - start:
            yield gather_rows(file, own)
        else:
            rows = read_rows(file, start, stop)
            yield rows if len(own) == len(rows) else rows[own - start]


def _write_with_lists(
    out: ParquetOut, table: pa.Table, part: Part, positions: np.ndarray, kind: pa.DataType
) -> None:
    """Append a table with the list column of its rows, which is read in batches."""
    done = 0
    for start, lists in _batches_of_lists(part, kind):
        first, last = np.searchsorted(positions, [start, start + len(lists)])
        if last > first:
            taken = lists.take(pa.array(positions[first:last] - start))
            field = pa.field(part.embeddings.column, kind)
            out.write(table.slice(first, last - first).append_column(field, taken))
            done += last - first
    if done != len(positions):
        raise InputError(
            f"{part.embeddings.path}: has fewer rows than when the run read it ({done} of "
            f"{len(positions)} found)."
        )
    if not done:
        empty = pa.nulls(0, kind)
        out.write(table.append_column(pa.field(part.embeddings.column, kind), empty))


def _batches_of_lists(part: Part, kind: pa.DataType) -> Iterator[tuple[int, pa.Array]]:
    """Yield the list column of a part in order, with the position of each batch."""
    file = part.embeddings
    if file.problem is not None:
        yield 0, pa.nulls(file.rows, kind)
        return
    step = max(1, EXPORTED_BYTES // (8 * file.dim))
    start = 0
    with read_again(file.path, _open_lists, file.path) as opened:
        for batch in opened.iter_batches(step, columns=[file.column], use_threads=False):
            lists = batch.column(0)
            yield start, lists if lists.type == kind else lists.cast(kind)
            start += len(lists)


def _open_lists(path: str) -> Any:
    try:
        return pq.ParquetFile(open_parquet_source(path), pre_buffer=False, buffer_size=1 << 20)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}).") from error
