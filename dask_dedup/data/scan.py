"""From the names of files to parts: which there are, how they pair, and which cannot be read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from natsort import natsorted, ns

from dask_dedup.data.column_rows import ColumnHeader, read_column_header, settle_dimension
from dask_dedup.data.each_file import ask_each_file
from dask_dedup.data.embedding_file import EmbeddingFile
from dask_dedup.data.metadata_footer import read_footer
from dask_dedup.data.pairing import check_pairs, missing_numbers
from dask_dedup.data.parts import Part, read_npy_header
from dask_dedup.errors import ColumnError, InputError, UnreadableError
from dask_dedup.paths import AnyPath, as_path, refuse_undecodable
from dask_dedup.storage.listing import glob_files, has_files, list_files
from dask_dedup.storage.objects import words_of

__all__ = [
    "add_texts",
    "find_files",
    "find_matching",
    "find_usual",
    "scan_parts",
    "scan_texts",
]

logger = logging.getLogger(__name__)

Read = TypeVar("Read")


def find_files(folder: AnyPath, suffix: str) -> list[str]:
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
    for name in names:
        refuse_undecodable(name)
    return [str(folder / name) for name in natsorted(names, alg=ns.PATH)]


def find_matching(base: AnyPath, pattern: str) -> list[str]:
    """Return the files that match a pattern, in natural order of their paths.

    Parameters
    ----------
    base : AnyPath
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
        hint = " [ ] stand for one of the characters within; [[] is a bracket." * ("[" in pattern)
        raise InputError(f"{pattern}: no file matches this pattern, as seen from {base}.{hint}")
    for path in paths:
        refuse_undecodable(path)
    return natsorted(paths, alg=ns.PATH)


def find_usual(folder: AnyPath, pattern: str | None, usual: str, suffix: str) -> list[str]:
    """Return the files that match a pattern, or those of a usual folder where there is none."""
    if pattern is not None:
        return find_matching(folder, pattern)
    return find_files(folder / usual if usual else folder, suffix)


def scan_parts(
    metadata_paths: Sequence[str] | None,
    embedding_paths: Sequence[str],
    column: str | None = None,
    skip_bad: bool = False,
) -> tuple[tuple[Part, ...], tuple[pa.Schema, ...]]:
    """Pair metadata and embedding files into parts, and refuse what does not fit.

    Files are paired by order, which the numbers in their names must not contradict; where these
    say nothing, a line is logged. The dimension is that of most rows.

    Parameters
    ----------
    metadata_paths, embedding_paths : sequence of str
        As many of one as of the other, in the order that defines ``row_id``; without metadata
        None, and the rows are those of the embeddings.
    column : str, optional
        A list column of the embedding files, which are parquet files then.
    skip_bad : bool
        Note the ``problem`` of a file that cannot be read, or does not fit, instead of raising. The
        part has as many rows as those of its files have that can be read: none if none can.

    Returns
    -------
    parts : tuple of Part
    schemas : tuple of pyarrow.Schema
        The metadata schema of each part; empty where its file cannot be read.

    Raises
    ------
    InputError
        Different numbers of files, or names that contradict; UnreadableError where counts of a part
        differ, dimensions are mixed, or a file cannot be read.
    """
    if column is None and metadata_paths is not None:
        _check_paired("embedding", embedding_paths, "metadata", metadata_paths)
    files = _read_headers(embedding_paths, column, skip_bad)
    footers: Sequence = [(_rows_of(file), pa.schema([])) for file in files]
    if metadata_paths is not None:
        footers = ask_each_file(_tried(read_footer, skip_bad), metadata_paths)
    first = _first_good(files)
    parts: list[Part] = []
    schemas: list[pa.Schema] = []
    row_start = 0
    for i, (file, footer) in enumerate(zip(files, footers, strict=True)):
        metadata_path = "" if metadata_paths is None else metadata_paths[i]
        if not isinstance(footer, InputError):
            rows, schema = footer
            metadata_problem = None
        else:
            rows = _rows_of(file)
            schema = pa.schema([])
            metadata_problem = str(footer)
        embeddings = _fit(file, embedding_paths[i], first, metadata_path, rows, skip_bad)
        parts.append(Part(i, row_start, metadata_path, embeddings, None, metadata_problem))
        schemas.append(schema if column is None else _without(schema, column))
        row_start += rows
    if row_start == 0:
        raise InputError(
            f"{as_path((metadata_paths or embedding_paths)[0]).parent}: all parts are empty."
        )
    return tuple(parts), tuple(schemas)


def scan_texts(
    parts: Sequence[Part], text_paths: Sequence[str], skip_bad: bool = False
) -> tuple[Part, ...]:
    """Give the text embeddings of the same rows to parts.

    Raises
    ------
    InputError
        As `scan_parts` does.
    """
    kind, paths = "metadata", [part.metadata_path for part in parts if part.metadata_path]
    if not paths:
        kind, paths = "embeddings", [part.embeddings.path for part in parts]
    _check_paired("text embedding", text_paths, kind, paths)
    files = _read_headers(text_paths, None, skip_bad)
    first = _first_good(files)
    texts = [
        _fit(file, path, first, part.metadata_path, part.rows, skip_bad)
        for file, path, part in zip(files, text_paths, parts, strict=True)
    ]
    return tuple(
        replace(part, text_embeddings=text) for part, text in zip(parts, texts, strict=True)
    )


def _rows_of(file: EmbeddingFile | InputError) -> int:
    """Return the rows of a file; 0 where it cannot be read."""
    return file.rows if isinstance(file, EmbeddingFile) else 0


def _check_paired(kind: str, paths: Sequence[str], other: str, other_paths: Sequence[str]) -> None:
    """Raise where there are not as many of both, or their names contradict their order."""
    if len(paths) == len(other_paths):
        how = check_pairs(f"{kind}s", paths, other_paths)
        if how is not None:
            logger.warning("%s", how)
        return
    missing = missing_numbers(f"{kind}s", paths, other_paths)
    names = f"the first names are {Path(paths[0]).name} and {Path(other_paths[0]).name}"
    raise InputError(
        f"{as_path(paths[0]).parent}: {_count_files(len(paths), kind)}, but "
        f"{as_path(other_paths[0]).parent} has {_count_files(len(other_paths), other)}. "
        f"Each part needs one of each; {missing or names}."
    )


def _count_files(count: int, kind: str) -> str:
    return f"{count} {kind} file{'' if count == 1 else 's'}"


def _read_headers(
    paths: Sequence[str], column: str | None, skip_bad: bool
) -> list[EmbeddingFile | InputError]:
    """Return what is known of the embedding files, or why it is not."""
    if column is None:
        return ask_each_file(_tried(read_npy_header, skip_bad), paths)
    read = partial(read_column_header, column=column, files=len(paths))
    headers = ask_each_file(_tried(read, skip_bad), paths)
    good = [header for header in headers if isinstance(header, ColumnHeader)]
    settled = iter(settle_dimension(good) if good else ())
    return [next(settled) if isinstance(one, ColumnHeader) else one for one in headers]


def _tried(read: Callable[[str], Read], skip_bad: bool) -> Callable[[str], Read | InputError]:
    """Return ``read`` with UnreadableError for InputError, raised or returned."""

    def read_or_report(path: str) -> Read | InputError:
        try:
            return read(path)
        except ColumnError:  # no file is to blame
            raise
        except InputError as error:
            unreadable = UnreadableError(str(error), path)
            if skip_bad:
                return unreadable
            raise unreadable from error

    return read_or_report


def _first_good(files: Sequence[EmbeddingFile | InputError]) -> EmbeddingFile:
    """Return the first file of the dimension that most rows have; raise where all are bad."""
    good = [file for file in files if isinstance(file, EmbeddingFile)]
    if not good:
        error = files[0]
        assert isinstance(error, InputError)
        raise error
    rows: Counter[int] = Counter()
    for file in good:
        rows[file.dim] += file.rows
    dim = rows.most_common(1)[0][0]  # of two as common, the one that comes first
    return next(file for file in good if file.dim == dim)


def _fit(
    file: EmbeddingFile | InputError,
    path: str,
    first: EmbeddingFile,
    metadata_path: str,
    rows: int,
    skip_bad: bool,
) -> EmbeddingFile:
    """Return a file that has the dimension of ``first`` and as many rows as the metadata."""
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


def add_texts(
    parts: tuple[Part, ...], folder: AnyPath, pattern: str | None, skip_bad: bool
) -> tuple[tuple[Part, ...], str | None]:
    """Add the text embeddings, if there are any; or say why they are left out."""
    if pattern is None and not has_files(folder / "text_emb"):
        return parts, None
    try:
        paths = find_usual(folder, pattern, "text_emb", ".npy")
        return scan_texts(parts, paths, skip_bad), None
    except InputError as error:
        logger.warning("text embeddings are left out: %s", error)
        return parts, str(error)
