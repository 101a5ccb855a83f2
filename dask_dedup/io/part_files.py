"""What every finder writes beside its own files, part by part, for the stages after it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from dask_dedup.io.parts import Part
from dask_dedup.io.store import read_frame

__all__ = ["PartFiles", "read_invalid", "read_linked"]


class PartFiles(Protocol):
    """Where the files of each part lie, by kind.

    ``invalid``: rows without a usable embedding; ``linked``: EDGES known before the search;
    ``audit``: the true pairs of the audit's queries.
    """

    @property
    def folder(self) -> str:
        """Where they all lie."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Filled parts only."""

    def query_ids(self) -> np.ndarray:
        """Return the rows that the audit has sampled: int64, sorted."""

    def path(self, kind: str, part: Part) -> Path:
        """Return the path of one file of one part."""


def read_linked(files: PartFiles, part: Part) -> pd.DataFrame:
    """Return the EDGES from a part's rows to rows that stand for them: equal ones, or leaders."""
    return read_frame(files.path("linked", part))


def read_invalid(files: PartFiles, part: Part) -> pd.DataFrame:
    """Return a part's rows without a usable embedding.

    ``row_id`` int64 and ``reason`` uint8; of a finished run ``invalid_reason`` in words instead.
    """
    return read_frame(files.path("invalid", part))
