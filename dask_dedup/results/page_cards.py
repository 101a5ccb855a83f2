"""The gallery: rows that were read for the page become tiles, and those become cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dask_dedup.report.caption_words import mark_words
from dask_dedup.report.count_text import cosine_text, count_text
from dask_dedup.report.page_parts import Card, Step, Tile
from dask_dedup.results.page_edges import LongPath
from dask_dedup.results.page_rows import COLUMN

__all__ = ["SIZE_COLUMNS", "Tiles", "size_columns"]

#: Width and height, as data sets call them.
SIZE_COLUMNS = (
    ("width", "height"),
    ("original_width", "original_height"),
    ("WIDTH", "HEIGHT"),
)
_PATH_END = 4  # rows of a long path that are shown at each end


def size_columns(columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns that hold width and height."""
    return next((pair for pair in SIZE_COLUMNS if set(pair) <= set(columns)), None)


@dataclass(frozen=True)
class Tiles:
    """The rows that were read, by their ids.

    Attributes
    ----------
    rows : mapping
        ``row_id`` to the values of `dask_dedup.results.page_rows.RowScan`, ``site`` with them.
    sizes : (str, str) or None
        From `size_columns`.
    threshold : float
        Of the run.
    pictures : mapping
        ``row_id`` to a ``data:`` URL.
    rule : str
        Why the first row of a cluster stays.
    """

    rows: Mapping[int, Mapping[str, Any]]
    sizes: tuple[str, str] | None
    threshold: float
    pictures: Mapping[int, str]
    rule: str

    def tile(self, row_id: int, beside: int | None = None, similarity: float | None = None) -> Tile:
        """Return one row, its caption compared with that of another; ``similarity``: shown."""
        row = self.rows[row_id]
        other = None if beside is None else self.rows[beside]["caption"]
        caption = row["caption"]
        return Tile(
            row_id,
            "stays" if row["is_kept"] else "goes",
            self._note(row, beside),
            similarity,
            row["url"],
            caption,
            row["site"],
            self._size(row),
            mark_words(caption, other),
            beside is not None and bool(caption) and caption == other,
            self.pictures.get(row_id),
        )

    def _note(self, row: Mapping[str, Any], beside: int | None) -> str:
        if not row["is_kept"]:
            witness = row["witness_row_id"]
            return "" if witness == beside else f"for row {witness}"
        if row["cluster_size"] == 1:
            return "alone in its cluster"
        if row["row_id"] == row["cluster_id"]:
            return self.rule
        return f"no row that stays is at {self.threshold:g} to it"

    def _size(self, row: Mapping[str, Any]) -> str:
        if self.sizes is None:
            return ""
        values = [row.get(f"{COLUMN}{name}") for name in self.sizes]
        return " × ".join(str(one)[:8] for one in values) if all(values) else ""

    def cluster(self, members: Sequence[int]) -> Card:
        """Return a cluster by some of its rows: one that stays first, the others falling."""
        rows = [self.rows[row_id] for row_id in members]
        first = min(rows, key=lambda row: (not row["is_kept"], row["row_id"]))
        others = [row for row in rows if row is not first]
        others.sort(key=lambda row: (-_number(row["similarity"]), row["row_id"]))
        size = int(first["cluster_size"])
        shown = "" if size == len(rows) else f"{len(rows)} shown: the least alike, others at random"
        return Card(
            f"Cluster {first['cluster_id']}: {count_text(size, 'row')}",
            shown,
            self.tile(int(first["row_id"])),
            [self._beside(row, int(first["row_id"])) for row in others],
        )

    def _beside(self, row: Mapping[str, Any], first: int) -> Tile:
        return self.tile(int(row["row_id"]), first, _number(row["similarity"]))

    def pair(self, one: int, other: int, similarity: float, title: str, note: str = "") -> Card:
        """Return two rows; the one that stays, or the smaller, first."""
        first, second = sorted(
            (one, other), key=lambda row_id: (not self.rows[row_id]["is_kept"], row_id)
        )
        return Card(title, note, self.tile(first), [self.tile(second, first, similarity)])

    def path(self, found: LongPath, own_similarity: float | None) -> Card:
        """Return a path, its middle left out where it is long."""
        edges = found.edges
        nodes = [*edges["from_row"].tolist(), edges["to_row"].iloc[-1].item()]
        shown = shown_steps(len(nodes), int(np.flatnonzero(edges["is_weakest"])[0]))
        steps = []
        for place, after in zip(shown, [*shown[1:], None], strict=True):
            left_out = 0 if after is None else after - place - 1
            edge = None if after is None else edges.iloc[place]
            steps.append(
                Step(
                    self.tile(nodes[place]),
                    None if edge is None else float(edge["similarity"]),
                    edge is not None and not left_out and bool(edge["is_weakest"]),
                    left_out,
                )
            )
        own = "" if own_similarity is None else f"the two ends have {cosine_text(own_similarity)}; "
        what = "longest path" if found.is_longest else "least alike"
        return Card(
            f"Cluster {found.cluster_id}: {what}",
            f"{own}{count_text(len(edges), 'pair')} link them, the weakest "
            f"{cosine_text(edges['similarity'].min())}",
            path=steps,
        )


def shown_steps(nodes: int, weakest: int) -> list[int]:
    """Return which nodes of a path are shown: both ends, and those at its weakest edge."""
    ends = {*range(min(_PATH_END, nodes)), *range(max(nodes - _PATH_END, 0), nodes)}
    return sorted(ends | {weakest, weakest + 1})


def _number(value: Any) -> float:
    return -1.0 if value is None or pd.isna(value) else float(value)
