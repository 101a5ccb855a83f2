"""Which data set edges are of: they carry it, so that later functions need no argument for it.

Beside the thresholds (`dask_dedup.graph.forest_range`), edges found in cells carry the number of
rows and the fields of the layout that they were found in, and so do the forest and the labels made
of them. It is optional: edges of a caller's own carry none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

__all__ = ["Origin", "cut_rows", "origin_of", "origin_of_notes", "with_origin"]

_KEY = "dask_dedup.origin"  # of a frame's ``attrs``, and of a parquet file's notes
_CUT_ROWS = 1 << 20  # rows whose labels are one partition: 24 MB where all are linked


class Origin(NamedTuple):
    """``rows`` of the data set; ``layout``, the fields of its `CellLayout`, JSON."""

    rows: int
    layout: Mapping[str, Any]

    def notes(self) -> dict[str, str]:
        """Return what a parquet file's schema carries of it."""
        return {_KEY: json.dumps(self)}


def with_origin(frame: pd.DataFrame, origin: Origin | None) -> pd.DataFrame:
    """Return a frame that carries an origin; None: it carries none."""
    frame = frame.copy(deep=False)
    frame.attrs = {key: value for key, value in frame.attrs.items() if key != _KEY}
    if origin is not None:
        frame.attrs[_KEY] = [origin.rows, dict(origin.layout)]
    return frame


def origin_of(frame: Any) -> Origin | None:
    """Return the origin that a frame carries, or the empty one that describes a Dask collection."""
    fields = frame.attrs.get(_KEY)
    return None if fields is None else Origin(*fields)


def origin_of_notes(notes: Mapping[bytes, bytes] | None) -> Origin | None:
    """Return the origin in the metadata of a parquet schema."""
    text = (notes or {}).get(_KEY.encode())
    return None if text is None else Origin(*json.loads(text))


def cut_rows(rows: int) -> list[tuple[int, int]]:
    """Return the ranges of rows whose labels are a partition each: at least one."""
    starts = range(0, max(rows, 1), _CUT_ROWS)
    return [(start, min(start + _CUT_ROWS, max(rows, 1))) for start in starts]
