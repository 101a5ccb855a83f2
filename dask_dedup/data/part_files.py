"""What every finder writes beside its own files, span by span, for the stages after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from dask_dedup.data.part_list import PartList
from dask_dedup.data.parts import Part
from dask_dedup.data.spans import Span
from dask_dedup.storage.files import read_frame

__all__ = ["PartFiles", "SpanFiles", "read_invalid", "read_linked"]


class PartFiles(Protocol):
    """Where the files of a data set lie, by kind."""

    @property
    def folder(self) -> str:
        """Where they all lie."""

    @property
    def part_list(self) -> PartList:
        """The filled parts."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Filled parts only."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """The filled parts as tasks read them."""

    def query_ids(self) -> np.ndarray:
        """Return the rows that the audit has sampled: int64, sorted."""

    def invalid_paths(self, span: Span) -> Sequence[Path]:
        """Return the files of a span's rows without a usable embedding."""

    def audit_paths(self) -> Sequence[Path]:
        """Return the files of the true pairs of the audit's queries."""


class SpanFiles(Protocol):
    """Where the working files of each span lie, by kind.

    ``linked``: EDGES known before the search.
    """

    def path(self, kind: str, span: Span) -> Path:
        """Return the path of one file of one span."""


def read_linked(files: SpanFiles, span: Span) -> pd.DataFrame:
    """Return the EDGES from a span's rows to equal ones that stand for them."""
    return read_frame(files.path("linked", span))


def read_invalid(files: PartFiles, span: Span) -> pd.DataFrame:
    """Return a span's rows without a usable embedding.

    ``row_id`` int64 and ``reason`` uint8; of a finished run ``invalid_reason`` in words instead.
    """
    frames = [read_frame(path, first_columns=2) for path in files.invalid_paths(span)]
    return pd.concat([some for some in frames if len(some)] or frames[:1], ignore_index=True)
