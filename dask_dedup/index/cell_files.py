"""Where the cell layout of a data set lies: a handle that tasks carry, without what they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dask_dedup.io.forest_range import ForestRange
from dask_dedup.io.objects import local_copy
from dask_dedup.io.part_list import read_parts
from dask_dedup.io.parts import Part
from dask_dedup.io.store import open_once, read_arrays
from dask_dedup.places import as_place

__all__ = ["SAME_SIMILARITY", "CellLayout", "read_cell_counts"]

#: Members of a dense group are at this cosine or above to its leader, and not compared with each
#: other. Ours: copies that were compressed again lie at 0.99 to 1.
SAME_SIMILARITY = 0.999


@dataclass(frozen=True)
class CellLayout:
    """Where the layout of a data set lies, and what it was made with.

    Attributes
    ----------
    folder : str
    kept : int
        Axes of the PCA; a stored image has one coordinate more.
    cells : int
    dense_groups : bool
        Whether members of a dense group are compared with its leader only: see
        `dask_dedup.index.leaders`.
    """

    folder: str
    kept: int
    cells: int
    dense_groups: bool = True

    def answers_from(self, threshold: float) -> ForestRange:
        """Return the thresholds that a search from ``threshold`` up answers.

        With dense groups, whose inner pairs are not compared, none at `SAME_SIMILARITY` or above.
        """
        has_groups = self.dense_groups and threshold < SAME_SIMILARITY
        return ForestRange(threshold, SAME_SIMILARITY if has_groups else None)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The filled parts of the data set: read from a file, which keeps tasks small."""
        return open_once(read_parts, self.parts_path)

    def query_ids(self) -> np.ndarray:
        """Return the rows that the audit has sampled."""
        return read_arrays(self.queries_path)["row_ids"]

    def path(self, kind: str, part: Part) -> Path:
        """Return the path of one file of one part."""
        suffix = {"records": "bin", "offsets": "npy"}.get(kind, "parquet")
        return as_place(self.folder) / f"{kind}-{part.index:05d}.{suffix}"

    @property
    def parts_path(self) -> str:
        """The file of the parts."""
        return str(as_place(self.folder) / "parts.json")

    @property
    def queries_path(self) -> Path:
        """The file of the rows that the audit has sampled."""
        return as_place(self.folder) / "queries.safetensors"

    @property
    def model_paths(self) -> list[Path]:
        """The files of PCA, cells and leaders."""
        return [as_place(p) for p in (self.pca_path, self.cells_path, self.leaders_path)]

    @property
    def pca_path(self) -> str:
        """The PCA's file."""
        return str(as_place(self.folder) / "pca.safetensors")

    @property
    def leaders_path(self) -> str:
        """The file of the dense groups' leaders."""
        return str(as_place(self.folder) / "leaders.safetensors")

    @property
    def cells_path(self) -> str:
        """The centroids' file."""
        return str(as_place(self.folder) / "cells.safetensors")


def read_cell_counts(layout: CellLayout) -> np.ndarray:
    """Return how many rows visit each cell: int64, shape (cells,)."""
    counts = np.zeros(layout.cells, np.int64)
    for part in layout.parts:
        counts += np.diff(np.load(local_copy(layout.path("offsets", part))))
    return counts
