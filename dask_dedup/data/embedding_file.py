"""One file of embeddings, known by its header."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dask_dedup.storage.objects import local_copy

__all__ = ["EmbeddingFile", "one_line"]


@dataclass(frozen=True)
class EmbeddingFile:
    """One file of embeddings: ``.npy``, or a list column of a parquet file.

    Attributes
    ----------
    path : str
        Local, or a URL.
    rows, dim : int
    dtype : str
        As numpy writes it, byte order included: ``"<f2"``.
    fortran_order : bool
    data_offset : int
        Bytes before the first value.
    column : str or None
        Of a parquet file; the two before then mean nothing.
    problem : str or None
        Why the file cannot be read, where it is quarantined: its rows are read as NaN.
    """

    path: str
    rows: int
    dim: int
    dtype: str
    fortran_order: bool
    data_offset: int
    column: str | None = None
    problem: str | None = None

    def unreadable(self, path: str, rows: int, problem: str) -> EmbeddingFile:
        """Return one of this dimension that cannot be read."""
        return replace(self, path=path, rows=rows, problem=problem)

    def map(self) -> np.ndarray:
        """Return a ``.npy`` file as a read-only memory map of shape (rows, dim)."""
        if self.rows == 0:
            return np.empty((0, self.dim), self.dtype)
        return np.memmap(
            local_copy(self.path),
            np.dtype(self.dtype),
            mode="r",
            offset=self.data_offset,
            shape=(self.rows, self.dim),
            order="F" if self.fortran_order else "C",
        )


def one_line(error: Exception) -> str:
    """Return what an error says without its line breaks, to be quoted in ours."""
    return " ".join(str(error).split())
