"""`read_dataset`: metadata and embeddings of a data set under one ``row_id``, lazily."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from dask.delayed import delayed

from dask_dedup.data.file_versions import FileVersions, paths_of, version_or_none
from dask_dedup.data.locate import Patterns, locate
from dask_dedup.data.metadata import (
    MetadataColumns,
    empty_table,
    read_metadata,
    to_pandas,
    unify_columns,
)
from dask_dedup.data.parts import EmbeddingFile, Part, read_rows
from dask_dedup.data.scan import add_texts, scan_parts
from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath, as_path

if TYPE_CHECKING:
    import dask.array as da
    import dask.dataframe as dd

__all__ = ["BadFile", "Dataset", "read_dataset"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """An image-text data set: parts of metadata and embeddings that share ``row_id``.

    Attributes
    ----------
    path : str
    parts : tuple of Part
        In natural order of the file names; empty ones included.
    columns : MetadataColumns
    modality : str
        ``image`` or ``text``: whose embeddings the parts carry as ``embeddings``.
    texts_problem : str or None
        Why the text embeddings that lie beside the images are left out, if they are.
    """

    path: str
    parts: tuple[Part, ...]
    columns: MetadataColumns
    modality: str = "image"
    texts_problem: str | None = None

    def __repr__(self) -> str:
        parts = f"{len(self.parts):,} part{'s' * (len(self.parts) != 1)}"
        return (
            f"<Dataset {self.path}: {self.rows:,} rows in {parts}, dimension {self.dim}, "
            f"{self.modality}>"
        )

    def _repr_html_(self) -> str:
        """Return the same as a table, with the names of the columns, for a notebook."""
        lines = {
            "rows": f"{self.rows:,}",
            "parts": f"{len(self.parts):,}",
            "dimension": f"{self.dim} ({self.modality} embeddings)",
            "columns": ", ".join(self.columns.schema.names),
        }
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in lines.items()
        )
        return f"<div><p><b>{escape(self.path)}</b></p><table>{rows}</table></div>"

    @property
    def rows(self) -> int:
        """Number of rows in all parts."""
        return self.parts[-1].row_stop

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self.parts[0].embeddings.dim

    @property
    def filled_parts(self) -> tuple[Part, ...]:
        """Parts with rows: the partitions of the collections below."""
        return tuple(part for part in self.parts if part.rows)

    @property
    def paths(self) -> list[str]:
        """All files, each once."""
        return list(dict.fromkeys(path for part in self.parts for path in paths_of(part)))

    @property
    def divisions(self) -> tuple[int, ...]:
        """Dask divisions of everything that has one partition per filled part."""
        return (*(part.row_start for part in self.filled_parts), self.rows - 1)

    @property
    def metadata(self) -> dd.DataFrame:
        """ROWS: ``url``, ``caption`` and the user's other columns, indexed by ``row_id``.

        Lazy; one partition per filled part, known divisions; selecting columns reads only them.
        """
        import dask.dataframe as dd

        return dd.from_map(
            _read_metadata_frame,
            self.filled_parts,
            all_columns=self.columns,
            meta=to_pandas(empty_table(self.columns)).set_index(
                pd.Index([], dtype=np.int64, name="row_id")
            ),
            divisions=self.divisions,
            enforce_metadata=False,  # an empty projection would raise
            label="read-metadata",
        )

    def view(self, modality: str) -> Dataset:
        """Return this data set with the embeddings of ``modality`` as those that are compared.

        Raises
        ------
        InputError
            The data set has none of them, or was read without them.
        """
        if modality == self.modality:
            return self
        texts = [part.text_embeddings for part in self.parts if part.text_embeddings is not None]
        if modality != "text" or len(texts) < len(self.parts):
            if modality == "text" and self.texts_problem is not None:
                raise InputError(
                    f"{self.path}: its text embeddings cannot be used. {self.texts_problem}"
                )
            raise InputError(
                f"{self.path}: has no {modality} embeddings as it was read, only those of "
                f"modality {self.modality}. Texts are expected in text_emb/*.npy, one file a part, "
                f"and images are not read with modality='text'."
            )
        parts = tuple(
            replace(part, embeddings=file) for part, file in zip(self.parts, texts, strict=True)
        )
        return replace(self, parts=parts, modality=modality)

    @property
    def embeddings(self) -> da.Array:
        """The stored embeddings: lazy, shape (rows, dim), one block of rows per filled part."""
        return self._array([part.embeddings for part in self.filled_parts])

    @property
    def text_embeddings(self) -> da.Array | None:
        """As `embeddings`, of ``text_emb``; None where the data set has none."""
        files = [part.text_embeddings for part in self.filled_parts]
        if any(file is None for file in files):
            return None
        return self._array(files)

    def _array(self, files: Sequence) -> da.Array:
        import dask.array as da

        dtype = np.result_type(*(file.dtype for file in files))
        blocks = [
            da.from_delayed(
                delayed(_read_block)(file, str(dtype)), (file.rows, file.dim), dtype=dtype
            )
            for file in files
        ]
        return da.concatenate(blocks)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the files' names, sizes, times (of a store: ETags), row counts and content.

        Of the content of local files some blocks, see `content_mark`; 20,000 small parts took 4 s.
        """
        return self._versions.fingerprint

    @property
    def sketch(self) -> list[str]:
        """Digests by which a grown or changed version is known: see `dask_dedup.data.sketch`."""
        return self._versions.sketch

    @property
    def bad_files(self) -> list[BadFile]:
        """The files that are quarantined, and why."""
        return [
            BadFile(path, part.rows, problem, *version_or_none(path))
            for part in self.parts
            for path, problem in (
                (part.metadata_path, part.metadata_problem),
                (part.embeddings.path, part.embeddings.problem),
            )
            if problem is not None
        ]

    def quarantined(self, problems: Mapping[str, str]) -> Dataset:
        """Return this data set without the content of some files: paths, and why.

        Embeddings are NaN then, and metadata null. Files that are quarantined already stay so.
        """
        return replace(self, parts=tuple(_quarantine(part, problems) for part in self.parts))

    def check_unchanged(self, content: bool = False) -> None:
        """Raise InputError where a file has been written anew, or is gone, since `fingerprint`.

        With ``content`` also where size and time are the same, but not what `content_mark` reads.
        """
        self._versions.check_unchanged(content)

    @cached_property
    def _versions(self) -> FileVersions:
        return FileVersions(self.parts)


class BadFile(NamedTuple):
    """A file that is quarantined: path, rows of its part, why, and its size and time as it is."""

    path: str
    rows: int
    problem: str
    size: int
    version: str


def read_dataset(
    path: str | AnyPath,
    *,
    url_column: str | None = None,
    caption_column: str | None = None,
    modality: str = "image",
    metadata: str | None = None,
    image_embeddings: str | None = None,
    text_embeddings: str | None = None,
    embedding_column: str | None = None,
    columns: Sequence[str] | None = None,
    drop_columns: Sequence[str] | None = None,
    skip_bad_parts: bool = False,
    texts: bool = True,
) -> Dataset:
    """Open a data set in the layout of clip-retrieval and LAION, or another; reads headers only.

    Parameters
    ----------
    path : str or path
        A folder, or a URL of one (``s3://bucket/folder``), with ``img_emb/*.npy`` (float16, float32
        or float64, shape (rows, dim)) and ``metadata/*.parquet``, as many of one as of the other,
        and optionally ``text_emb/*.npy``. Files are paired in natural order of their names, and
        numbers in these must not contradict it. Also a ``.npy`` file, a ``.parquet`` file with a
        column of embeddings, or a folder of such files. Without ``metadata`` there is neither
        ``url`` nor ``caption``: a row is known by its position.
    url_column, caption_column : str, optional
        Names of the metadata columns that become ``url`` and ``caption``. By default ``url``
        or ``URL``, and ``caption`` or ``TEXT``, in each part its own; their absence is logged once.
    modality : str
        ``image``, or ``text``: then the parts' ``embeddings`` are those of ``text_emb``, and
        ``img_emb`` is neither needed nor looked at.
    metadata, image_embeddings, text_embeddings : str, optional
        Patterns (``*``, ``**``) of the files instead of these folders; relative ones start from
        ``path``.
    embedding_column : str, optional
        A list column of the metadata files that holds the embeddings to compare, instead of files
        of their own. Null rows, and those of another length than most, count as invalid; integers
        become floating point; a struct with one list, or a list of one list, is unwrapped. Without
        ``metadata/``, the parquet files are expected in ``path`` itself. Of a parquet file, or a
        folder of these, the one column of the first file that holds lists of floats of one length
        is found by itself.
    columns, drop_columns : sequence of str, optional
        Names, in the files, of the metadata columns that are carried beside URL and caption (all,
        by default), and of those that are not.
    skip_bad_parts : bool
        Quarantine files that cannot be read, or do not fit the rest, instead of raising: see
        `Dataset.bad_files`. Rows of such embeddings are unusable, such metadata are null.
    texts : bool
        Look for text embeddings beside images. Those that do not fit, or of which some are missing,
        are left out with a line: `Dataset.texts_problem`.

    Returns
    -------
    Dataset
        Lazy: ``.metadata`` is a Dask data frame, ``.embeddings`` a Dask array.

    Raises
    ------
    InputError
        Naming the file and what is wrong with it.
    ColumnError
        Naming a column that has types in two parts that nothing holds both of.
    SettingsError
        The URL holds credentials, or no installed package speaks its protocol.

    Examples
    --------
    >>> dataset = read_dataset("examples/data/clipart")
    >>> dataset.rows, dataset.dim, len(dataset.parts)
    (10248, 512, 5)
    >>> dataset.metadata[["url", "caption"]].npartitions
    5
    """
    place = as_path(path)
    if modality not in ("image", "text"):
        raise InputError(f"modality: expected image or text, got {modality!r}.")
    if embedding_column is not None and (image_embeddings or text_embeddings):
        raise InputError(
            "embedding_column: the embeddings are expected in a column of the metadata files, so "
            "image_embeddings and text_embeddings cannot be given beside it."
        )
    found = locate(
        place,
        modality,
        Patterns(metadata, image_embeddings, text_embeddings, embedding_column),
    )
    parts, schemas = scan_parts(
        found.metadata_paths, found.embedding_paths, found.column, skip_bad_parts
    )
    problem = None
    if modality == "text":
        parts = tuple(replace(part, text_embeddings=part.embeddings) for part in parts)
    elif found.column is None and found.folder == place and texts:
        parts, problem = add_texts(parts, place, text_embeddings, skip_bad_parts)
    unified = unify_columns(parts, schemas, url_column, caption_column, columns, drop_columns)
    return Dataset(str(place), parts, unified, modality, problem)


def _read_metadata_frame(
    part: Part, all_columns: MetadataColumns, columns: Sequence[str]
) -> pd.DataFrame:
    """Return one partition of `Dataset.metadata`.

    Dask passes the ``columns`` that are wanted: also where none are, since there is no default.
    """
    frame = to_pandas(read_metadata(part, all_columns.select(columns)))
    frame.index = pd.Index(np.arange(part.row_start, part.row_stop), name="row_id")
    return frame


def _read_block(file: EmbeddingFile, dtype: str) -> np.ndarray:
    """Return one whole embedding file as ``dtype``."""
    return read_rows(file, 0, file.rows).astype(dtype, copy=False)


def _quarantine(part: Part, problems: Mapping[str, str]) -> Part:
    file = part.embeddings
    if file.path in problems and file.problem is None:
        part = replace(part, embeddings=file.unreadable(file.path, file.rows, problems[file.path]))
    if part.metadata_path in problems and part.metadata_problem is None:
        part = replace(part, metadata_problem=problems[part.metadata_path])
    return part
