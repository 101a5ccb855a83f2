"""Which files a data set consists of: one file, a folder of them, or the usual folders.

1. One ``.npy`` file, or one ``.parquet`` file with a column of embeddings.
2. A folder with ``img_emb`` (or ``text_emb``) and ``metadata``, or patterns for other names.
3. A folder that has ``.npy`` files itself, or ``.parquet`` files with a column of embeddings; or
   such files in ``metadata`` alone, as `dask_dedup.export` writes them again.

Without metadata, which only bare ``.npy`` files can be, a row is known by its position alone. What
could be meant in two ways is refused.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.data.column_rows import read_column_header
from dask_dedup.data.embedding_file import one_line
from dask_dedup.data.list_types import holds_floats
from dask_dedup.data.scan import find_usual
from dask_dedup.errors import ColumnError, InputError, UnreadableError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.listing import has_files, list_files
from dask_dedup.storage.objects import open_parquet_source, words_of

__all__ = ["Located", "Patterns", "locate"]

logger = logging.getLogger(__name__)

_FOLDERS = {"image": "img_emb", "text": "text_emb"}
_LAYOUTS = (
    "A data set is a folder with img_emb/*.npy and metadata/*.parquet, as clip-retrieval writes "
    "it; a folder of .npy files, or of .parquet files with a column of embeddings; or one such "
    "file."
)


_LEAST_DIM = 8  # of a column that is taken without being named


class _NoColumnError(ColumnError):
    """No column can be the embeddings."""


@dataclass(frozen=True)
class Patterns:
    """What the caller names of a data set's files, instead of the usual.

    Attributes
    ----------
    metadata, image_embeddings, text_embeddings, embedding_column : str or None
        As `dask_dedup.read_dataset` takes them.
    """

    metadata: str | None = None
    image_embeddings: str | None = None
    text_embeddings: str | None = None
    embedding_column: str | None = None


@dataclass(frozen=True)
class Located:
    """The files of a data set.

    Attributes
    ----------
    folder : AnyPath
        From which relative patterns start, and where other embeddings are looked for.
    embedding_paths : list of str
    metadata_paths : list of str or None
        As many; None: there are none.
    column : str or None
        The list column that holds the embeddings, in the files of metadata.
    """

    folder: AnyPath
    embedding_paths: list[str]
    metadata_paths: list[str] | None
    column: str | None = None


def locate(place: AnyPath, modality: str, patterns: Patterns) -> Located:
    """Find the files of a data set; reads the names of files, and one footer where a column is.

    Parameters
    ----------
    place : AnyPath
        A folder or a file.
    modality : str
        ``image`` or ``text``.
    patterns : Patterns

    Raises
    ------
    InputError
        There are none, or it is not clear which are meant.
    """
    if _is_file(place):
        return _locate_file(place, patterns)
    if not is_remote(place) and not os.path.isdir(place):  # Path.is_dir raises of long names
        raise InputError(f"{place}: no such folder or file.")
    if patterns.embedding_column is not None:
        own = patterns.metadata is not None or has_files(place / "metadata")
        paths = find_usual(place, patterns.metadata, "metadata" if own else "", ".parquet")
        return Located(place, paths, paths, patterns.embedding_column)
    usual = _FOLDERS[modality]
    wanted = patterns.text_embeddings if modality == "text" else patterns.image_embeddings
    if wanted is None and _is_missing(place / usual):
        return _locate_in_folder(place, modality, patterns)
    paths = find_usual(place, wanted, usual, ".npy")
    if patterns.metadata is None and _is_missing(place / "metadata"):
        raise InputError(
            f"{place / 'metadata'}: no such folder. {_LAYOUTS} Where there is no metadata, give "
            f"the folder of the .npy files itself."
        )
    return Located(place, paths, find_usual(place, patterns.metadata, "metadata", ".parquet"))


def _is_file(place: AnyPath) -> bool:
    if not is_remote(place):
        return os.path.isfile(place)
    return str(place).endswith((".npy", ".parquet")) and not has_files(place)


def _is_missing(folder: AnyPath) -> bool:
    """Return whether there is no such folder; where a store or a disk refuses, it may be there."""
    try:
        return list_files(folder) is None
    except OSError:
        return False


def _locate_file(place: AnyPath, patterns: Patterns) -> Located:
    """Take one file for the whole data set."""
    path, folder = str(place), place.parent
    if patterns.image_embeddings or patterns.text_embeddings:
        raise InputError(
            f"{place}: image_embeddings and text_embeddings are patterns of files in a folder, and "
            f"this is a file. Give the folder, or leave them out."
        )
    if path.endswith(".npy"):
        if patterns.embedding_column is not None:
            raise InputError(
                f"{place}: embedding_column names a column of .parquet files, and this is a .npy "
                f"file. Leave it out."
            )
        if patterns.metadata is None:
            _say_without_metadata(place)
            return Located(folder, [path], None)
        return Located(folder, [path], find_usual(folder, patterns.metadata, "", ".parquet"))
    if not path.endswith(".parquet"):
        raise InputError(
            f"{place}: expected a .npy or .parquet file, got {PurePosixPath(path).suffix or 'none'}"
            f". {_LAYOUTS}"
        )
    if patterns.metadata is not None:
        raise InputError(
            f"{place}: is metadata itself, so metadata cannot be given beside it. Give a .npy file "
            f"with it, or leave it out."
        )
    return Located(folder, [path], [path], patterns.embedding_column or _find_column(path))


def _locate_in_folder(place: AnyPath, modality: str, patterns: Patterns) -> Located:
    """Take the files that lie in a folder itself, if they are of one kind."""
    usual = _FOLDERS[modality]
    other = next(name for name in _FOLDERS.values() if name != usual)
    if modality == "text":
        raise InputError(
            f"{place / usual}: no such folder. Modality text compares the captions' embeddings, "
            f"which are expected there, one .npy file for each file of metadata."
        )
    try:
        names = list_files(place)
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({words_of(error)}).") from error
    arrays = [name for name in names or () if name.endswith(".npy")]
    tables = [name for name in names or () if name.endswith(".parquet")]
    if arrays and tables:
        raise InputError(
            f"{place}: holds .npy files ({len(arrays)}) and .parquet files ({len(tables)}) side by "
            f'side. Say what they are: image_embeddings="*.npy" (--image-embeddings) with '
            f'metadata="*.parquet" (--metadata) pairs them in the order of their names; '
            f"embedding_column (--embedding-column) takes the embeddings from the .parquet files."
        )
    if arrays:
        paths = find_usual(place, None, "", ".npy")
        if patterns.metadata is None and _is_missing(place / "metadata"):
            _say_without_metadata(place)
            return Located(place, paths, None)
        return Located(place, paths, find_usual(place, patterns.metadata, "metadata", ".parquet"))
    if tables and patterns.metadata is None and not has_files(place / "metadata"):
        paths = find_usual(place, None, "", ".parquet")
        return Located(place, paths, paths, _find_column(paths[0], len(paths)))
    if not arrays and not tables and (patterns.metadata or has_files(place / "metadata")):
        paths = find_usual(place, patterns.metadata, "metadata", ".parquet")
        with suppress(_NoColumnError):  # then the files of embeddings are missing
            return Located(place, paths, paths, _find_column(paths[0], len(paths)))
    hint = ""
    if has_files(place / other):
        hint = f" {other} is there: --modality text compares it."
    raise InputError(f"{place / usual}: no such folder. {_LAYOUTS}{hint}")


def _say_without_metadata(place: AnyPath) -> None:
    logger.warning("%s: no metadata; a row is known by its position, row_id", place)


def _find_column(path: str, files: int = 1) -> str:
    """Return the one column of a file that holds lists of floats, all of one length.

    Short lists are coordinates, or colours: no embeddings.

    Raises
    ------
    InputError
        There is none, or there are several: ``embedding_column`` names one.
    """
    try:
        with pq.ParquetFile(open_parquet_source(path), pre_buffer=False) as file:
            schema = file.schema_arrow
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UnreadableError(
            f"{path}: expected a parquet file ({one_line(error)}).", path
        ) from error
    found = []
    for field in schema:
        if holds_floats(field.type) and schema.names.count(field.name) == 1:
            lengths = read_column_header(path, field.name, files).lengths
            if len(lengths) == 1 and min(lengths) >= _LEAST_DIM:
                found.append((field.name, next(iter(lengths))))
    if len(found) == 1:
        name, dim = found[0]
        logger.warning("%s: embeddings are in column %r, of dimension %d", path, name, dim)
        return name
    hint = "embedding_column (--embedding-column) names the one that holds the embeddings."
    if not found:
        raise _NoColumnError(
            f"{path}: no column holds lists of {_LEAST_DIM} or more floats, all of one length; the "
            f"columns are {_names(schema)}. {hint}"
        )
    some = ", ".join(repr(name) for name, _ in found)
    raise ColumnError(
        f"{path}: {len(found)} columns hold lists of floats, each of one length: {some}. {hint}"
    )


def _names(schema: pa.Schema) -> str:
    names = schema.names
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
