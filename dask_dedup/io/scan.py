"""From the names of files to parts: which there are, how they pair, and which cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from natsort import natsorted, ns

from dask_dedup.errors import ColumnError, InputError, UnreadableError
from dask_dedup.io.column_rows import read_column_header, settle_dimensions
from dask_dedup.io.embedding_file import EmbeddingFile
from dask_dedup.io.metadata_footer import read_footer
from dask_dedup.io.objects import glob_files, list_files, words_of
from dask_dedup.io.parts import Part, read_npy_header
from dask_dedup.places import as_place

__all__ = ["find_files", "find_matching", "scan_parts"]

_HEADER_THREADS = 16  # headers of thousands of files, mostly waiting
Read = TypeVar("Read")


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


def scan_parts(
    metadata_paths: Sequence[str],
    embedding_paths: Sequence[str],
    text_paths: Sequence[str] | None,
    column: str | None = None,
    skip_bad: bool = False,
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
    skip_bad : bool
        Note the ``problem`` of a file that cannot be read, or does not fit, instead of raising. The
        part has as many rows as those of its files tell that can be read: none if none can.

    Returns
    -------
    parts : tuple of Part
    schemas : tuple of pyarrow.Schema
        The metadata schema of each part; empty where its file cannot be read.

    Raises
    ------
    InputError
        Different numbers of files; UnreadableError where counts of a part differ, dimensions are
        mixed, or a file cannot be read.
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
        footers = list(pool.map(_tried(read_footer, skip_bad), metadata_paths))
        files = list(pool.map(_tried(read_header, skip_bad), embedding_paths))
        texts = (
            list(pool.map(_tried(read_npy_header, skip_bad), text_paths))
            if text_paths is not None
            else [None] * len(files)
        )
    files = _settle(files)
    first, first_text = _first_good(files), _first_good(texts)
    parts: list[Part] = []
    schemas: list[pa.Schema] = []
    row_start = 0
    for i, (metadata_path, footer) in enumerate(zip(metadata_paths, footers, strict=True)):
        known = [found for found in (files[i], texts[i]) if isinstance(found, EmbeddingFile)]
        if not isinstance(footer, InputError):
            rows, schema = footer
            metadata_problem = None
        else:
            rows, schema = (known[0].rows if known else 0), pa.schema([])
            metadata_problem = str(footer)
        embeddings = _fit(files[i], embedding_paths[i], first, metadata_path, rows, skip_bad)
        text = None
        if text_paths is not None:
            text = _fit(texts[i], text_paths[i], first_text, metadata_path, rows, skip_bad)
        parts.append(Part(i, row_start, metadata_path, embeddings, text, metadata_problem))
        schemas.append(schema if column is None else _without(schema, column))
        row_start += rows
    if row_start == 0:
        raise InputError(f"{as_place(metadata_paths[0]).parent}: all parts are empty.")
    return tuple(parts), tuple(schemas)


def _tried(read: Callable[[str], Read], skip_bad: bool) -> Callable[[str], Read | InputError]:
    """Return ``read`` with UnreadableError for InputError, raised or returned."""

    def read_or_tell(path: str) -> Read | InputError:
        try:
            return read(path)
        except ColumnError:  # no file is to blame
            raise
        except InputError as error:
            unreadable = UnreadableError(str(error), path)
            if skip_bad:
                return unreadable
            raise unreadable from error

    return read_or_tell


def _first_good(files: Sequence[EmbeddingFile | InputError | None]) -> EmbeddingFile | None:
    """Return the file whose dimension the others must have; raise where all are bad."""
    good = next((file for file in files if isinstance(file, EmbeddingFile)), None)
    if good is None and isinstance(files[0], InputError):
        raise files[0]
    return good


def _settle(files: Sequence[EmbeddingFile | InputError]) -> list[EmbeddingFile | InputError]:
    """Give the dimension of the others to files in which no row tells it."""
    settled = iter(settle_dimensions([file for file in files if isinstance(file, EmbeddingFile)]))
    return [next(settled) if isinstance(file, EmbeddingFile) else file for file in files]


def _fit(
    file: EmbeddingFile | InputError | None,
    path: str,
    first: EmbeddingFile | None,
    metadata_path: str,
    rows: int,
    skip_bad: bool,
) -> EmbeddingFile:
    """Return a file that has the dimension of the first and as many rows as the metadata."""
    assert first is not None
    problem = file if isinstance(file, InputError) else None
    if isinstance(file, EmbeddingFile):
        if file.dim != first.dim:
            problem = UnreadableError(
                f"{path}: embeddings have dimension {file.dim}, but {first.path} has {first.dim}. "
                f"All parts of a data set must share one dimension."
            )
        elif file.rows != rows:
            problem = UnreadableError(
                f"{path}: {file.rows} embeddings, but {metadata_path} has {rows} rows. Row i of "
                f"the one belongs to row i of the other; write the part again."
            )
        else:
            return file
    assert problem is not None
    if not skip_bad:
        raise problem
    return first.unreadable(path, rows, str(problem))


def _without(schema: pa.Schema, column: str) -> pa.Schema:
    index = schema.get_field_index(column)
    return schema if index < 0 else schema.remove(index)
