"""Spans: neighbouring parts that one task reads, cut by rows alone.

People cut the same rows into one file or into tens of thousands. What a run does once per part (a
task, a message, a file of entries, of links, of labels) it does once per span instead, so that its
cost grows with the rows. Parts of a million rows are a span each, as they were a task each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dask_dedup.data.part_rows import PartRows
from dask_dedup.data.parts import Part

__all__ = ["Span", "count_spans", "cut_spans", "packed_spans", "read_span"]

#: Rows of a span, at least and at most. A layout task takes some 1.1 kB a row: 0.3 GB.
_LEAST_ROWS, _MOST_ROWS = 2048, 1 << 18
_FEW_PARTS, _SMALL_ROWS = 64, 1000  # see `packed_spans`
_SPANS = 32  # that a data set is cut into between these: tasks for every worker of one machine


@dataclass(frozen=True)
class Span:
    """Neighbouring parts: what one task reads.

    Attributes
    ----------
    index : int
        Position among the spans.
    parts : tuple of Part
        Of which at least one has rows.
    """

    index: int
    parts: tuple[Part, ...]

    @property
    def row_start(self) -> int:
        """``row_id`` of the first row."""
        return self.parts[0].row_start

    @property
    def row_stop(self) -> int:
        """``row_id`` after the last row."""
        return self.parts[-1].row_stop

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.row_stop - self.row_start

    @cached_property
    def embeddings(self) -> PartRows:
        """The rows of all its parts."""
        return PartRows(self.parts)

    @property
    def name(self) -> str:
        """What its task is called."""
        return f"span-{self.index:05d}"


def cut_spans(parts: Sequence[Part], rows: int = 0) -> tuple[Span, ...]:
    """Put neighbouring parts together; `count_spans` counts alike.

    Parameters
    ----------
    parts : sequence of Part
        With or without the empty ones, which change no cut.
    rows : int
        Of a span at most, a larger part alone; 0: a 32nd of all, at least 2,048 and at most 2^18.

    Returns
    -------
    tuple of Span
        Two neighbours have more rows than that together, so that there are at most twice as many
        as the rows need, however many parts there are.
    """
    total = parts[-1].row_stop - parts[0].row_start
    limit = rows or _limit(total)
    groups: list[list[Part]] = []
    gathered = 0
    for part in parts:
        if not groups or (part.rows and gathered and gathered + part.rows > limit):
            groups.append([])
            gathered = 0
        groups[-1].append(part)
        gathered += part.rows
    return tuple(Span(index, tuple(group)) for index, group in enumerate(groups))


def count_spans(rows: int, parts: int) -> int:
    """Return how many spans `cut_spans` makes of parts of equal size."""
    return -(-parts // max(1, _limit(rows) * parts // rows))


def _limit(rows: int) -> int:
    return min(max(rows // _SPANS, _LEAST_ROWS), _MOST_ROWS)


def packed_spans(spans: Sequence[Span]) -> list[Span]:
    """Return the spans whose rows are copied into one file each before they are read singly.

    Those with rows in parquet columns; and where there are more than 64 parts, those whose parts
    have fewer than 1,000 rows on average. (A task of the join reads some 50,000 single rows. From
    larger files it reads several at a time; in a copy of small ones it opens one file a span.)
    """
    filled = [[part for part in span.parts if part.rows] for span in spans]
    is_many = sum(map(len, filled)) > _FEW_PARTS
    return [
        span
        for span, parts in zip(spans, filled, strict=True)
        if any(part.embeddings.column is not None for part in parts)
        or (is_many and len(parts) > 1 and span.rows < _SMALL_ROWS * len(parts))
    ]


def read_span(span: Span, start: int, stop: int) -> np.ndarray:
    """Return some rows of a span by their position in it, in the span's widest dtype."""
    return span.embeddings.read(span.row_start + start, span.row_start + stop)
