"""`read_dataset`: metadata and embeddings of a data set under one ``row_id``, lazily."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from dask.delayed import delayed

from dask_dedup.errors import InputError
from dask_dedup.io.metadata import MetadataColumns, read_metadata, to_pandas, unify_columns
from dask_dedup.io.parts import EmbeddingFile, Part, find_files, read_rows, scan_parts

if TYPE_CHECKING:
    import dask.array as da
    import dask.dataframe as dd

__all__ = ["Dataset", "read_dataset"]


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
    """

    path: str
    parts: tuple[Part, ...]
    columns: MetadataColumns
    modality: str = "image"

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
            meta=to_pandas(self.columns.schema.empty_table()).set_index(
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

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the files' names, sizes, times and row counts."""
        facts = []
        for part in self.parts:
            for path in dict.fromkeys(_paths_of(part)):
                status = os.stat(path)
                facts.append((Path(path).name, status.st_size, status.st_mtime_ns, part.rows))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_dataset(
    path: str | os.PathLike,
    *,
    url_column: str | None = None,
    caption_column: str | None = None,
    modality: str = "image",
) -> Dataset:
    """Open a data set in the layout of clip-retrieval and LAION; reads headers only.

    Parameters
    ----------
    path : str or path
        A folder with ``img_emb/*.npy`` (float16, float32 or float64, shape (rows, dim)) and
        ``metadata/*.parquet``, as many of one as of the other, and optionally
        ``text_emb/*.npy``. Files are paired in natural order of their names.
    url_column, caption_column : str, optional
        Names of the metadata columns that become ``url`` and ``caption``. By default ``url``
        or ``URL``, and ``caption`` or ``TEXT``; their absence is logged once.
    modality : str
        ``image``, or ``text``: then the parts' ``embeddings`` are those of ``text_emb``, and
        ``img_emb`` is neither needed nor looked at.

    Returns
    -------
    Dataset
        Lazy: ``.metadata`` is a Dask data frame, ``.embeddings`` a Dask array.

    Raises
    ------
    InputError
        Naming the file and what is wrong with it.

    Examples
    --------
    >>> dataset = read_dataset("examples/data/clipart")
    >>> dataset.rows, dataset.dim, len(dataset.parts)
    (10248, 512, 5)
    >>> dataset.metadata[["url", "caption"]].npartitions
    5
    """
    folder = Path(path)
    if not os.path.isdir(folder):  # where Path.is_dir would raise, of a name too long, say
        raise InputError(f"{folder}: no such folder.")
    if modality not in ("image", "text"):
        raise InputError(f"modality: expected image or text, got {modality!r}.")
    text_folder = folder / "text_emb"
    text_paths = None
    if modality == "text":
        if not text_folder.is_dir():
            raise InputError(
                f"{text_folder}: no such folder. Modality text compares the captions' embeddings, "
                f"which are expected there, one .npy file for each file of metadata."
            )
        embedding_paths = find_files(text_folder, ".npy")
    else:
        embedding_paths = find_files(folder / "img_emb", ".npy")
        text_paths = find_files(text_folder, ".npy") if text_folder.is_dir() else None
    metadata_paths = find_files(folder / "metadata", ".parquet")
    parts, schemas = scan_parts(metadata_paths, embedding_paths, text_paths)
    if modality == "text":
        parts = tuple(replace(part, text_embeddings=part.embeddings) for part in parts)
    columns = unify_columns(parts, schemas, url_column, caption_column)
    return Dataset(str(folder), parts, columns, modality)


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


def _paths_of(part: Part) -> list[str]:
    paths = [part.metadata_path, part.embeddings.path]
    if part.text_embeddings is not None:
        paths.append(part.text_embeddings.path)
    return paths
