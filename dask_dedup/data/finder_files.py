"""What every finder writes beside its own files, span by span, for the stages after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dask_dedup.data.part_list import PartList, read_parts
from dask_dedup.data.parts import Part
from dask_dedup.data.spans import Span
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.files import open_once, read_arrays, read_frame

__all__ = ["FinderFiles", "SpanFiles", "read_invalid", "read_linked"]


class FinderFiles(ABC):
    """Where the files of a data set lie, by kind: a handle that tasks carry.

    Attributes
    ----------
    folder : str
        Where they all lie.
    """

    folder: str

    @property
    def parts_path(self) -> str:
        """The file of the filled parts: see `dask_dedup.data.part_list.write_parts`."""
        return str(as_path(self.folder) / "parts.json")

    @property
    def part_list(self) -> PartList:
        """The filled parts of the data set: read from a file, which keeps tasks small."""
        return open_once(read_parts, self.parts_path)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The filled parts of the data set."""
        return self.part_list.parts

    @property
    def spans(self) -> tuple[Span, ...]:
        """The filled parts as tasks read them."""
        return self.part_list.spans

    @abstractmethod
    def query_ids(self) -> np.ndarray:
        """Return the rows that the audit has sampled: int64, sorted."""

    @abstractmethod
    def invalid_paths(self, span: Span) -> Sequence[AnyPath]:
        """Return the files of a span's rows without a usable embedding."""

    @abstractmethod
    def audit_paths(self) -> Sequence[AnyPath]:
        """Return the files of the true pairs of the audit's queries."""


class SpanFiles(FinderFiles):
    """Where the working files of a search lie: those of each span by kind, all in one folder.

    ``invalid``: rows without a usable embedding; ``linked``: EDGES known before the search;
    ``audit``: the true pairs of the audit's queries.
    """

    @property
    def queries_path(self) -> AnyPath:
        """The file of the rows that the audit has sampled."""
        return as_path(self.folder) / "queries.safetensors"

    def path(self, kind: str, span: Span) -> AnyPath:
        """Return the path of one file of one span."""
        return as_path(self.folder) / f"{kind}-{span.index:05d}.parquet"

    def query_ids(self) -> np.ndarray:
        """Return the rows that the audit has sampled."""
        return read_arrays(self.queries_path)["row_ids"]

    def invalid_paths(self, span: Span) -> list[AnyPath]:
        """Return the files of a span's rows without a usable embedding."""
        return [self.path("invalid", span)]

    def audit_paths(self) -> list[AnyPath]:
        """Return the files of the audit's true pairs."""
        return [self.path("audit", span) for span in self.spans]


def read_linked(files: SpanFiles, span: Span) -> pd.DataFrame:
    """Return the EDGES from a span's rows to rows that stand for them: equal ones, or leaders."""
    return read_frame(files.path("linked", span))


def read_invalid(files: FinderFiles, span: Span) -> pd.DataFrame:
    """Return a span's rows without a usable embedding.

    ``row_id`` int64 and ``reason`` uint8; of a finished run ``invalid_reason`` in words instead.
    """
    frames = [read_frame(path, first_columns=2) for path in files.invalid_paths(span)]
    return pd.concat([some for some in frames if len(some)] or frames[:1], ignore_index=True)
