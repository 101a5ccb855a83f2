"""Where the cell layout of a data set lies: a handle that tasks carry, without what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from dask_dedup.data.finder_files import SpanFiles
from dask_dedup.data.spans import Span
from dask_dedup.errors import DamagedError, SettingsError
from dask_dedup.graph.forest_range import SAME_SIMILARITY, ForestRange, looks_inside_groups
from dask_dedup.graph.origin import Origin
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.files import open_once, read_arrays, read_json, write_json

__all__ = ["SAME_SIMILARITY", "CellLayout", "EntryFile"]


class EntryFile(NamedTuple):
    """Entries of some neighbouring rows, sorted by cell, in two files; see `cells.entries`.

    ``path`` and ``offsets_path`` are text; ``entries`` is how many there are;
    ``row_start`` to ``row_stop`` are the rows that they are of, with positions counted from the
    first.
    """

    path: str
    offsets_path: str
    row_start: int
    row_stop: int
    entries: int


@dataclass(frozen=True)
class CellLayout(SpanFiles):
    """Where the layout of a data set lies, and what it was made with.

    Attributes
    ----------
    folder : str
    kept : int
        Axes of the PCA; the codes have one coordinate more.
    cells : int
    dense_groups : bool
        Whether members of a dense group are compared with its leader only: see
        `dask_dedup.cells.leaders`.
    """

    folder: str
    kept: int
    cells: int
    dense_groups: bool = True

    def answers_from(self, threshold: float) -> ForestRange:
        """Return the thresholds that a search from ``threshold`` up answers.

        With dense groups, whose inner pairs are not compared, none at `SAME_SIMILARITY` or above.
        """
        has_groups = self.dense_groups and not looks_inside_groups(threshold)
        return ForestRange(threshold, SAME_SIMILARITY if has_groups else None)

    def check_threshold(self, threshold: float) -> None:
        """Raise SettingsError where pairs that a threshold asks for are not compared."""
        if not 0 < threshold <= 1:
            raise SettingsError(
                f"threshold: expected a cosine above 0 and at most 1, got {threshold:g}."
            )
        if not looks_inside_groups(threshold) or not self.dense_groups:
            return
        if len(read_arrays(self.leaders_path)["row_ids"]):
            raise SettingsError(
                f"{self.folder}: rows of cosine {SAME_SIMILARITY:g} or above to the leader of a "
                f"dense group were not compared with each other, so a threshold of {threshold:g} "
                f"has no answer here. Make another layout with build_cells(dense_groups=False)."
            )

    @property
    def origin(self) -> Origin:
        """What the edges that are found here say of the data set."""
        return Origin(self.parts[-1].row_stop, asdict(self))

    @property
    def entry_files(self) -> tuple[EntryFile, ...]:
        """What the join reads."""
        return open_once(_read_entry_files, self._entry_files_path)

    def write_entry_files(self, files: Sequence[EntryFile]) -> None:
        """Write the list of the files that the tasks of the join read."""
        write_json(self._entry_files_path, {"files": [list(file) for file in files]})

    def entry_file(self, span: Span, entries: int) -> EntryFile:
        """Return what `dask_dedup.cells.layout.layout_span` makes of a span."""
        path, offsets = str(self.path("entries", span)), str(self.path("offsets", span))
        return EntryFile(path, offsets, span.row_start, span.row_stop, entries)

    def path(self, kind: str, span: Span) -> AnyPath:
        """Return the path of one file of one span."""
        path = super().path(kind, span)
        return path.with_suffix(".bin") if kind in ("entries", "offsets") else path

    @property
    def _entry_files_path(self) -> AnyPath:
        return as_path(self.folder) / "entry-files.json"

    @property
    def model_paths(self) -> list[AnyPath]:
        """The files of PCA, cells and leaders."""
        return [as_path(p) for p in (self.pca_path, self.cells_path, self.leaders_path)]

    @property
    def pca_path(self) -> str:
        """The PCA's file."""
        return str(as_path(self.folder) / "pca.safetensors")

    @property
    def leaders_path(self) -> str:
        """The file of the dense groups' leaders."""
        return str(as_path(self.folder) / "leaders.safetensors")

    @property
    def cells_path(self) -> str:
        """The centroids' file."""
        return str(as_path(self.folder) / "cells.safetensors")


def _read_entry_files(path: AnyPath) -> tuple[EntryFile, ...]:
    content = read_json(path)
    if content is None:
        raise DamagedError(f"{path}: is missing or damaged.", str(path))
    return tuple(EntryFile(*fields) for fields in content["files"])
