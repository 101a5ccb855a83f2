"""The thresholds that a forest answers; it carries them, and every reader checks them.

A forest searched from a cosine up lacks the edges below it. Searched with dense groups, it lacks
those inside the groups, which are at 0.999 or above: see `dask_dedup.cells.dense_groups`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dask_dedup.errors import SettingsError

__all__ = [
    "SAME_SIMILARITY",
    "ForestRange",
    "combined_range",
    "range_of",
    "range_of_notes",
    "with_range",
]

#: Members of a dense group are at this cosine or above to its leader, and not compared with each
#: other. Ours: copies that were compressed again lie at 0.99 to 1.
SAME_SIMILARITY = 0.999
_KEY = "dask_dedup.thresholds"  # of a frame's ``attrs``, and of a parquet file's notes


class ForestRange(NamedTuple):
    """Thresholds from ``lowest`` up, and below ``below`` unless that is None; cosines."""

    lowest: float
    below: float | None

    def answers(self, threshold: float) -> bool:
        """Return whether the components at a threshold are those of a search of its own."""
        wanted = np.float32(threshold)  # as edges are compared
        return bool(
            wanted >= np.float32(self.lowest)
            and (self.below is None or wanted < np.float32(self.below))
        )

    def check(self, threshold: float, what: str) -> None:
        """Raise SettingsError where a threshold is outside."""
        if not 0 < threshold <= 1:  # nan, too
            raise SettingsError(
                f"threshold: expected a cosine above 0 and at most 1, got {threshold:g}."
            )
        if not self.answers(threshold):
            raise SettingsError(
                f"{what}: {self.describe()}; got {threshold:g}. Search anew at this threshold."
            )

    def describe(self) -> str:
        """Return in words which thresholds it answers."""
        upto = "1" if self.below is None else f"below {self.below:g}"
        inside = "" if self.below is None else " (inside dense groups, no higher pair was sought)"
        return f"answers thresholds from {self.lowest:g} to {upto}{inside}"

    def notes(self) -> dict[str, str]:
        """Return what a parquet file's schema carries of it."""
        # The second is how pandas reads a frame's ``attrs`` back.
        return {_KEY: json.dumps(self), "PANDAS_ATTRS": json.dumps({_KEY: self})}


def looks_inside_groups(threshold: float) -> bool:
    """Return whether a threshold, as edges are compared, asks for pairs inside dense groups."""
    return bool(np.float32(threshold) >= np.float32(SAME_SIMILARITY))


def with_range(frame: pd.DataFrame, known: ForestRange | None) -> pd.DataFrame:
    """Return a frame of edges that carries a range; None: it answers whatever it is asked."""
    frame = frame.copy(deep=False)
    frame.attrs = {key: value for key, value in frame.attrs.items() if key != _KEY}
    if known is not None:
        frame.attrs[_KEY] = list(known)
    return frame


def range_of(frame: Any) -> ForestRange | None:
    """Return the range that edges carry; None where they are a caller's own.

    ``frame``: a data frame, or the empty one that describes a Dask collection.
    """
    fields = frame.attrs.get(_KEY)
    return None if fields is None else ForestRange(*fields)


def range_of_notes(notes: Mapping[bytes, bytes] | None) -> ForestRange | None:
    """Return the range in the metadata of a parquet schema."""
    text = (notes or {}).get(_KEY.encode())
    return None if text is None else ForestRange(*json.loads(text))


def combined_range(ranges: Iterable[ForestRange | None]) -> ForestRange | None:
    """Return what edges of several searches answer together: what each of them does."""
    known = [one for one in ranges if one is not None]
    if not known:
        return None
    tops = [one.below for one in known if one.below is not None]
    return ForestRange(max(one.lowest for one in known), min(tops, default=None))
