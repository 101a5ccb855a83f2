"""The embeddings of many parts as one array on disk, whatever the parts: ranges, single rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dask_dedup.data.embedding_file import EmbeddingFile
from dask_dedup.data.parts import Part, gather_rows, read_rows

__all__ = ["PartRows", "gather_by_row"]


class PartRows:
    """The embeddings of neighbouring parts; made once for many reads.

    Parts that lie behind each other in one file (`dask_dedup.pipeline.packing` puts small ones
    so) are read as one. One file is open at a time.

    Parameters
    ----------
    parts : sequence of Part
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.files: list[EmbeddingFile] = []
        starts: list[int] = []
        for part in [part for part in parts if part.rows] or parts[:1]:
            file = part.embeddings
            if self.files and _continues(self.files[-1], file):
                self.files[-1] = replace(self.files[-1], rows=self.files[-1].rows + file.rows)
            else:
                self.files.append(file)
                starts.append(part.row_start)
        #: First row of each file, and the row after the last.
        self.starts = np.array([*starts, parts[-1].row_stop], np.int64)
        #: The widest dtype of all, of native byte order: no stored value changes in it.
        self.dtype = np.result_type(*{np.dtype(file.dtype) for file in self.files})
        self.dtype = self.dtype.newbyteorder("=")
        self.dim = self.files[0].dim

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the rows of ids ``start`` to ``stop``: shape (stop - start, dim)."""
        first, last = np.searchsorted(self.starts, [start, stop - 1], "right") - 1
        if first == last and np.dtype(self.files[first].dtype).newbyteorder("=") == self.dtype:
            offset = int(self.starts[first])
            return read_rows(self.files[first], start - offset, stop - offset)
        block = np.empty((stop - start, self.dim), self.dtype)
        for number in range(first, last + 1):
            begin = max(start, int(self.starts[number]))
            end = min(stop, int(self.starts[number + 1]))
            offset = int(self.starts[number])
            block[begin - start : end - start] = read_rows(
                self.files[number], begin - offset, end - offset
            )
        return block

    def gather(self, row_ids: np.ndarray) -> np.ndarray:
        """Return single rows by their ids, int64, sorted: shape (row_ids, dim).

        In the widest dtype of the files that are touched, so that no stored value changes.
        """
        if not len(row_ids):
            return np.empty((0, self.dim), self.dtype)
        number = np.searchsorted(self.starts, row_ids, "right") - 1
        touched, first = np.unique(number, return_index=True)
        stops = [*first[1:].tolist(), len(row_ids)]
        blocks = [
            gather_rows(self.files[one], row_ids[begin:end] - self.starts[one])
            for one, begin, end in zip(touched.tolist(), first.tolist(), stops, strict=True)
        ]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def gather_by_row(parts: Sequence[Part], row_ids: np.ndarray) -> np.ndarray:
    """Read the embeddings of single rows of the whole data set, once.

    Parameters
    ----------
    parts : sequence of Part
    row_ids : int64 array, sorted

    Returns
    -------
    ndarray, shape (len(row_ids), dim)
        In the widest dtype of the parts that were touched, so that no stored value changes.
    """
    return PartRows(parts).gather(row_ids)


def _continues(file: EmbeddingFile, other: EmbeddingFile) -> bool:
    """Return whether ``other`` lies right behind ``file`` in the same file on disk."""
    row_bytes = file.dim * np.dtype(file.dtype).itemsize
    return (
        file.path == other.path
        and (file.dim, file.dtype) == (other.dim, other.dtype)
        and (file.column, other.column) == (None, None)
        and (file.problem, other.problem) == (None, None)
        and not file.fortran_order
        and not other.fortran_order
        and file.data_offset + file.rows * row_bytes == other.data_offset
    )
