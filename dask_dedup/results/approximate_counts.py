"""Counts in bounded memory that can be merged: how often names occur, and how many are distinct.

Both are exact as long as what is counted fits, and say how far off they may be where it does not.
They can be merged in any order; `NameCounts` that have lost names depend on it within their bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

__all__ = ["Distinct", "NameCounts"]

_MOST_NAMES = 20_000  # some 2 MB
_MOST_HASHES = 1024  # an estimate's standard error is 3 %


@dataclass
class NameCounts:
    """Rows by name, and how many of them are dropped: the most frequent names.

    Attributes
    ----------
    frame : DataFrame
        Indexed by name: ``rows``, ``dropped``, int64.
    missing : int
        No count is more than this below the true one; 0: all are exact.
    most : int
        Names that are kept.
    """

    frame: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(
            {"rows": np.empty(0, np.int64), "dropped": np.empty(0, np.int64)},
            index=pd.Index([], dtype=object),
        )
    )
    missing: int = 0
    most: int = _MOST_NAMES

    def add(self, names: np.ndarray, rows: np.ndarray, dropped: np.ndarray) -> None:
        """Add counts of names, which may repeat: object and int64 arrays of one length."""
        index = pd.Index(names, dtype=object)
        self._take(pd.DataFrame({"rows": rows, "dropped": dropped}, index=index), 0)

    def merge(self, other: NameCounts) -> None:
        """Add another's counts."""
        self._take(other.frame, other.missing)

    def _take(self, frame: pd.DataFrame, missing: int) -> None:
        both = pd.concat([self.frame, frame])
        both = both.groupby(level=0, sort=True).sum().astype(np.int64)
        self.missing += missing
        if len(both) > self.most:
            order = np.argsort(-both["rows"].to_numpy(), kind="stable")
            self.missing += int(both["rows"].iloc[order[self.most]])
            both = both.iloc[np.sort(order[: self.most])]
        self.frame = both

    def top(self, count: int) -> pd.DataFrame:
        """Return the names with the most dropped rows: ``name``, ``rows``, ``dropped``."""
        frame = self.frame[self.frame["dropped"] > 0].rename_axis("name").reset_index()
        order = np.lexsort(
            [frame["name"].to_numpy().astype(str), -frame["rows"], -frame["dropped"]]
        )
        return frame.iloc[order[:count]].reset_index(drop=True)


@dataclass
class Distinct:
    """How many different values there are, by the smallest of their hashes.

    Attributes
    ----------
    hashes : uint64 array
        The smallest different ones, sorted.
    most : int
        Hashes that are kept.
    """

    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    most: int = _MOST_HASHES

    def add(self, hashes: np.ndarray) -> None:
        """Add the hashes of some values: uint64."""
        self.hashes = np.unique(np.concatenate([self.hashes, hashes]))[: self.most]

    def merge(self, other: Distinct) -> None:
        """Add another's values."""
        self.add(other.hashes)

    @property
    def is_exact(self) -> bool:
        """Whether the count is no estimate."""
        return len(self.hashes) < self.most

    @property
    def count(self) -> int:
        """How many: by the k-th smallest hash, where there are more than are kept."""
        if self.is_exact:
            return len(self.hashes)
        return round((self.most - 1) / (float(self.hashes[-1]) / 2.0**64))
