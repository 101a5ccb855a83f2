"""What the report page shows, as plain values: rows, clusters, tabs of the gallery, and the whole.

Nothing here is escaped: that is done where the page is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dask_dedup.report.caption_words import Words

__all__ = [
    "Card",
    "PageContent",
    "Placeholder",
    "PrecisionGoal",
    "Site",
    "Step",
    "Tab",
    "Tile",
]


@dataclass(frozen=True)
class Tile:
    """One row of the data set.

    Attributes
    ----------
    row_id : int
    verdict : str
        ``stays`` or ``goes``.
    note : str
        Why, or for which row.
    similarity : float or None
        To the row that it stands beside, as the card says.
    url, caption : str or None
    site : str
    size : str
        Width and height; empty where they are not known.
    words : sequence of Words
        The caption, marked.
    is_same_caption : bool
        As that of the first row.
    picture : str or None
        A ``data:`` URL.
    """

    row_id: int
    verdict: str
    note: str
    similarity: float | None
    url: str | None = None
    caption: str | None = None
    site: str = ""
    size: str = ""
    words: Sequence[Words] = ()
    is_same_caption: bool = False
    picture: str | None = None


@dataclass(frozen=True)
class Step:
    """One row on a path; ``similarity`` is that to the next one, None at the end.

    ``left_out``: how many rows between this one and the next are not shown.
    """

    tile: Tile
    similarity: float | None
    is_weakest: bool = False
    left_out: int = 0


@dataclass(frozen=True)
class Card:
    """One cluster, pair or path of the gallery.

    Attributes
    ----------
    title, note : str
    first : Tile or None
        The row that stays, or the first of a pair.
    others : sequence of Tile
    path : sequence of Step
        Instead of both.
    """

    title: str
    note: str = ""
    first: Tile | None = None
    others: Sequence[Tile] = ()
    path: Sequence[Step] = ()


@dataclass(frozen=True)
class Tab:
    """One tab of the gallery; ``absent`` says why it has no cards."""

    key: str
    label: str
    lead: str
    cards: Sequence[Card] = ()
    absent: str = ""


@dataclass(frozen=True)
class Placeholder:
    """A cluster that is likely one picture which stands in for many others."""

    tile: Tile
    cluster_id: int
    rows: int
    urls: int
    captions: int
    sites: int
    is_exact: bool


@dataclass(frozen=True)
class Site:
    """A site with many dropped rows."""

    name: str
    rows: int
    dropped: int


@dataclass(frozen=True)
class PrecisionGoal:
    """A wanted precision, and the lowest thresholds that have it; None: none does.

    ``estimated``: by the labelled pairs; ``sure``: by the lower end of their 95 % interval.
    """

    precision: float
    estimated: float | None
    sure: float | None


@dataclass(frozen=True)
class PageContent:
    """All that the page shows.

    Attributes
    ----------
    summary : mapping
        Content of ``summary.json``.
    identity : str
        The same as long as the clusters are the same: decisions are kept by it.
    histogram : DataFrame
        From `dask_dedup.report.histogram.histogram_frame`.
    sweep : DataFrame or None
        From `dask_dedup.results.sweep.sweep`, thresholds rising.
    sweep_absent : str
        Why there is none.
    precision : DataFrame or None
        From `dask_dedup.results.precision.precision`, where pairs have been labelled.
    goals : sequence of PrecisionGoal
    tabs, placeholders, sites : sequence
    searched_clusters, searched_size : int
        How many clusters placeholders were looked for in, the largest; rows of the smallest.
    site_error : int
        No count of a site is more than this too low.
    reasons : mapping
        Invalid rows by reason.
    settings : mapping
        Table to names and values.
    load_urls : bool
        Whether pictures are loaded from the web without being asked.
    has_web_pictures : bool
        Whether there are pictures that could be.
    pictures_wanted, pictures_found : int
    """

    summary: Mapping[str, Any]
    identity: str
    histogram: pd.DataFrame
    sweep: pd.DataFrame | None = None
    sweep_absent: str = ""
    precision: pd.DataFrame | None = None
    goals: Sequence[PrecisionGoal] = ()
    tabs: Sequence[Tab] = ()
    placeholders: Sequence[Placeholder] = ()
    searched_clusters: int = 0
    searched_size: int = 0
    sites: Sequence[Site] = ()
    site_error: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    load_urls: bool = False
    has_web_pictures: bool = False
    pictures_wanted: int = 0
    pictures_found: int = 0
