"""Files of a data set as parts: one metadata file and its embedding files, with global row ids.

Only headers are read here, except by `read_rows` and `gather_rows`, which a task calls.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from natsort import natsorted, ns

from dask_dedup.errors import InputError
from dask_dedup.io.column_rows import read_column_header, settle_dimensions, take_column_rows
from dask_dedup.io.embedding_file import EmbeddingFile, one_line
from dask_dedup.io.far_rows import fetch_rows, fetch_single_rows
from dask_dedup.io.objects import (
    glob_files,
    list_files,
    open_parquet_source,
    read_range,
    size_of,
    words_of,
)
from dask_dedup.places import as_place, is_remote

__all__ = [
    "EmbeddingFile",
    "Part",
    "find_files",
    "find_matching",
    "gather_by_row",
    "gather_rows",
    "one_line",
    "read_npy_header",
    "read_rows",
    "scan_parts",
]

_HEADER_BYTES = 1 << 14  # of a .npy file in a store: some 128 hold its header
_HEADER_THREADS = 16  # headers of thousands of files, mostly waiting
_GATHER_BYTES = 64 << 20  # pages mapped at a time: they count as a worker's own memory


@dataclass(frozen=True)
class Part:
    """One input file range: the unit of work of every stage that touches the input.

    Attributes
    ----------
    index : int
        Position among the parts in natural order of the file names.
    row_start : int
        ``row_id`` of the first row.
    metadata_path : str
    embeddings : EmbeddingFile
        The modality that is compared.
    text_embeddings : EmbeddingFile or None
    """

    index: int
    row_start: int
    metadata_path: str
    embeddings: EmbeddingFile
    text_embeddings: EmbeddingFile | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.embeddings.rows

    @property
    def row_stop(self) -> int:
        """``row_id`` after the last row."""
        return self.row_start + self.rows


def find_files(folder: Path, suffix: str) -> list[str]:
    """Return the files of ``folder`` that end in ``suffix``, in natural order.

    ``part_10`` comes after ``part_9``. Hidden files are passed over.

    Raises
    ------
    InputError
        The folder is missing, or holds no such file.
    """
    try:
        files = list_files(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({words_of(error)}).") from error
    if files is None:
        raise InputError(
            f"{folder}: no such folder. A data set is a folder with img_emb/*.npy and "
            f"metadata/*.parquet, as clip-retrieval writes it."
        )
    names = [name for name in files if name.endswith(suffix)]
    if not names:
        raise InputError(f"{folder}: expected *{suffix} files, found none.")
    return [str(folder / name) for name in natsorted(names, alg=ns.PATH)]


def find_matching(base: Path, pattern: str) -> list[str]:
    """Return the files that match a pattern, in natural order of their paths.

    Parameters
    ----------
    base : Path
        What a relative pattern starts from.
    pattern : str
        With ``*``, ``?``, ``[...]`` and ``**`` for any folders; a local path or a URL.

    Raises
    ------
    InputError
        There is none.
    """
    try:
        paths = glob_files(base, pattern)
    except OSError as error:
        raise InputError(f"{pattern}: cannot be read ({words_of(error)}).") from error
    if not paths:
        raise InputError(f"{pattern}: no file matches this pattern, as seen from {base}.")
    return natsorted(paths, alg=ns.PATH)


def read_npy_header(path: str) -> EmbeddingFile:
    """Read and check the header of one embedding file; the values stay unread.

    Raises
    ------
    InputError
        Not a ``.npy`` file, not two-dimensional, not of floating point, or shorter than its
        header says. Object arrays are refused, never unpickled.
    """
    try:
        with _open_header(path) as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ValueError(f"format version {version}")
            data_offset = file.tell()
        size_bytes = size_of(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({words_of(error)}).") from error
    except Exception as error:  # numpy raises half a dozen kinds on damaged headers
        raise InputError(
            f"{path}: expected a .npy file, but its header cannot be read ({one_line(error)}). "
            f"The file is damaged or of another format; write it again with numpy.save."
        ) from error
    if dtype.hasobject:
        raise InputError(
            f"{path}: holds Python objects, which are never unpickled. "
            f"Expected a float16, float32 or float64 array of shape (rows, dim)."
        )
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise InputError(f"{path}: expected float16, float32 or float64 values, got {dtype}.")
    if len(shape) != 2 or min(shape) < 0:
        raise InputError(f"{path}: expected an array of shape (rows, dim), got shape {shape}.")
    rows, dim = map(int, shape)
    if dim == 0:
        raise InputError(f"{path}: embeddings have dimension 0.")
    expected_bytes = data_offset + rows * dim * dtype.itemsize
    if size_bytes < expected_bytes:
        raise InputError(
            f"{path}: truncated. {rows} rows of dimension {dim} ({dtype}) need "
            f"{expected_bytes} bytes, but the file has {size_bytes}. Copy or write it again."
        )
    return EmbeddingFile(path, rows, dim, dtype.str, fortran_order, data_offset)


def read_metadata_footer(path: str) -> tuple[int, pa.Schema]:
    """Return the row count and schema of one parquet file.

    Raises
    ------
    InputError
        The file cannot be read as parquet.
    """
    try:
        with pq.ParquetFile(open_parquet_source(path)) as file:
            return file.metadata.num_rows, file.schema_arrow
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({words_of(error)}).") from error
    except (pa.ArrowException, ValueError) as error:  # ValueError: names that are no UTF-8
        raise InputError(
            f"{path}: expected a parquet file, but it cannot be read ({one_line(error)}). "
            f"The file is damaged or of another format."
        ) from error


def scan_parts(
    metadata_paths: Sequence[str],
    embedding_paths: Sequence[str],
    text_paths: Sequence[str] | None,
    column: str | None = None,
) -> tuple[tuple[Part, ...], tuple[pa.Schema, ...]]:
    """Pair metadata and embedding files into parts, and refuse what does not fit.

    Parameters
    ----------
    metadata_paths, embedding_paths : sequence of str
        As many of one as of the other, in the order that defines ``row_id``.
    text_paths : sequence of str or None
        Text embeddings of the same rows.
    column : str, optional
        A list column of the embedding files, which are parquet files then.

    Returns
    -------
    parts : tuple of Part
    schemas : tuple of pyarrow.Schema
        The metadata schema of each part.

    Raises
    ------
    InputError
        Different numbers of files, a part whose counts differ, mixed dimensions, or a file
        that cannot be read.
    """
    for name, paths in (("embedding", embedding_paths), ("text embedding", text_paths)):
        if paths is not None and len(paths) != len(metadata_paths):
            raise InputError(
                f"{as_place(paths[0]).parent}: {len(paths)} {name} files, but "
                f"{as_place(metadata_paths[0]).parent} has {len(metadata_paths)} metadata files. "
                f"Each part needs one of each; the first names are {Path(paths[0]).name} and "
                f"{Path(metadata_paths[0]).name}."
            )
    read_header = read_npy_header if column is None else partial(read_column_header, column=column)
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        footers = list(pool.map(read_metadata_footer, metadata_paths))
        files = settle_dimensions(list(pool.map(read_header, embedding_paths)))
        texts = list(pool.map(read_npy_header, text_paths)) if text_paths is not None else None

    parts: list[Part] = []
    row_start = 0
    for index, (metadata_path, (rows, _), file) in enumerate(
        zip(metadata_paths, footers, files, strict=True)
    ):
        text = texts[index] if texts is not None else None
        for candidate, first in ((file, files[0]), (text, texts[0] if texts else None)):
            if candidate is None or first is None:
                continue
            if candidate.dim != first.dim:
                raise InputError(
                    f"{candidate.path}: embeddings have dimension {candidate.dim}, but "
                    f"{first.path} has {first.dim}. All parts of a data set must share one "
                    f"dimension."
                )
            if candidate.rows != rows:
                raise InputError(
                    f"{candidate.path}: {candidate.rows} embeddings, but {metadata_path} has "
                    f"{rows} rows. Row i of the one belongs to row i of the other; write the "
                    f"part again."
                )
        parts.append(Part(index, row_start, metadata_path, file, text))
        row_start += rows
    if row_start == 0:
        raise InputError(f"{as_place(metadata_paths[0]).parent}: all parts are empty.")
    return tuple(parts), tuple(
        schema if column is None else schema.remove(schema.get_field_index(column))
        for _, schema in footers
    )


def _open_header(path: str) -> BinaryIO:
    return io.BytesIO(read_range(path, 0, _HEADER_BYTES)) if is_remote(path) else open(path, "rb")


def read_rows(file: EmbeddingFile, start: int, stop: int) -> np.ndarray:
    """Read rows ``start`` to ``stop`` of one file, in the stored dtype.

    Returns
    -------
    ndarray, shape (stop - start, dim), C order, native byte order

    Raises
    ------
    InputError
        The file has become shorter since its header was read.
    """
    if file.column is not None:
        return take_column_rows(file, np.arange(start, stop))
    if is_remote(file.path) and not file.fortran_order:
        return fetch_rows(file, start, stop)
    native = np.dtype(file.dtype).newbyteorder("=")
    if file.fortran_order or np.dtype(file.dtype) != native:
        _check_size(file)
        return np.ascontiguousarray(file.map()[start:stop], native)
    row_bytes = file.dim * native.itemsize
    block = np.empty((stop - start, file.dim), native)
    try:
        with open(file.path, "rb", buffering=0) as handle:
            handle.seek(file.data_offset + start * row_bytes)
            view = block.data.cast("B") if block.size else memoryview(b"")
            filled = 0
            while filled < len(view):
                count = handle.readinto(view[filled:])
                if not count:
                    _check_size(file)
                    raise InputError(f"{file.path}: ended while it was being read.")
                filled += count
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror or error}).") from error
    return block


def gather_rows(file: EmbeddingFile, positions: np.ndarray) -> np.ndarray:
    """Read single rows of one file, in the stored dtype.

    Parameters
    ----------
    positions : int64 array, sorted
        Positions inside the file.

    Returns
    -------
    ndarray, shape (len(positions), dim), native byte order
    """
    if file.column is not None:
        return take_column_rows(file, positions)
    if is_remote(file.path) and not file.fortran_order:
        return fetch_single_rows(file, positions)
    native = np.dtype(file.dtype).newbyteorder("=")
    rows = np.empty((len(positions), file.dim), native)
    _check_size(file)
    if file.fortran_order or np.dtype(file.dtype) != native:
        step = max(1, _GATHER_BYTES // (file.dim * native.itemsize + 4096))
        for begin in range(0, len(positions), step):
            chunk = positions[begin : begin + step]
            np.take(file.map(), chunk, axis=0, out=rows[begin : begin + step], mode="clip")
        return rows
    # One read a row costs a fifth of the page faults of a memory map.
    row_bytes = file.dim * native.itemsize
    view = memoryview(rows.view(np.uint8).data).cast("B") if rows.size else memoryview(b"")
    try:
        with open(file.path, "rb", buffering=0) as handle:
            number = handle.fileno()
            offsets = (file.data_offset + positions * row_bytes).tolist()
            for start, offset in zip(range(0, len(view), row_bytes), offsets, strict=True):
                if os.preadv(number, [view[start : start + row_bytes]], offset) != row_bytes:
                    _check_size(file)
                    raise InputError(f"{file.path}: ended while it was being read.")
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror or error}).") from error
    return rows


def gather_by_row(parts: Sequence[Part], row_ids: np.ndarray) -> np.ndarray:
    """Read the embeddings of single rows of the whole data set.

    Parameters
    ----------
    row_ids : int64 array, sorted

    Returns
    -------
    ndarray, shape (len(row_ids), dim)
        In the widest dtype of the parts that were touched, so that no stored value changes.
    """
    starts = np.array([part.row_start for part in parts] + [parts[-1].row_stop], np.int64)
    cuts = np.searchsorted(row_ids, starts)
    blocks = [
        gather_rows(part.embeddings, row_ids[cuts[i] : cuts[i + 1]] - part.row_start)
        for i, part in enumerate(parts)
        if cuts[i + 1] > cuts[i]
    ]
    if not blocks:
        return np.empty((0, parts[0].embeddings.dim), np.float32)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _check_size(file: EmbeddingFile) -> None:
    """Raise InputError where a file is shorter than its header said (a map would crash)."""
    expected = file.data_offset + file.rows * file.dim * np.dtype(file.dtype).itemsize
    try:
        size_bytes = size_of(file.path)
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read ({error.strerror or error}).") from error
    if size_bytes < expected:
        raise InputError(
            f"{file.path}: changed while it was being read; {expected} bytes expected, "
            f"{size_bytes} there."
        )
