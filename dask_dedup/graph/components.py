"""Distributed union-find: a tree of forest merges on Dask, then labels part by part.

The number of rounds is the logarithm of the number of partitions and does not grow with the
diameter of the graph.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from dask.delayed import Delayed, delayed

from dask_dedup.graph.forest import forest_of_edges, label_forest, merge_forests
from dask_dedup.graph.forest_file import read_range
from dask_dedup.graph.forest_range import (
    SAME_SIMILARITY,
    ForestRange,
    looks_inside_groups,
    range_of,
    with_range,
)
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.schema import FOREST, LABELS
from dask_dedup.storage.files import read_frame

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["label_components", "merge_tree", "read_forest", "spanning_forest"]

logger = logging.getLogger(__name__)

_MERGED_AT_ONCE = 8


def spanning_forest(edges: dd.DataFrame) -> dd.DataFrame:
    """Return the maximum spanning forest of all edges.

    Parameters
    ----------
    edges : dask DataFrame
        EDGES in any number of partitions, repeated or not.

    Returns
    -------
    dask DataFrame
        FOREST: lazy, one partition.
    """
    import dask.dataframe as dd

    forests = [delayed(forest_of_edges)(partition) for partition in edges.to_delayed()]
    meta = with_range(FOREST, range_of(edges._meta))
    return dd.from_delayed([merge_tree(forests)], meta=meta, prefix="spanning-forest")


def read_forest(out: str | AnyPath) -> dd.DataFrame:
    """Return the forest of a finished run.

    Parameters
    ----------
    out : path or URL
        OUT of the run.

    Returns
    -------
    dask DataFrame
        FOREST: lazy, one partition; it carries the thresholds that it answers.

    Raises
    ------
    DamagedError
        There is none, or it is not what was written.
    SettingsError
        It holds quantized distances of a run with ``--no-verify``.
    """
    import dask.dataframe as dd

    path = as_path(out) / "forest" / "part-00000.parquet"
    known = read_range(path)
    return dd.from_delayed(
        [delayed(_read_part)(str(path), known)], meta=with_range(FOREST, known), prefix="forest"
    )


def _read_part(path: str, known: ForestRange | None) -> pd.DataFrame:
    return with_range(read_frame(as_path(path)), known)


def merge_tree(forests: Sequence[Delayed]) -> Delayed:
    """Merge forests, eight at a time, until one is left.

    The last merge holds some 120 bytes per forest row.
    """
    level = list(forests)
    while len(level) > 1:
        level = [
            delayed(merge_forests)(level[i : i + _MERGED_AT_ONCE])
            for i in range(0, len(level), _MERGED_AT_ONCE)
        ]
    return level[0] if level else delayed(FOREST)


def label_components(
    forest: dd.DataFrame, threshold: float, divisions: Sequence[int]
) -> dd.DataFrame:
    """Label the components of the edges at or above a threshold.

    Parameters
    ----------
    forest : dask DataFrame
        FOREST, one partition, from `spanning_forest`; it carries the thresholds that it answers.
    threshold : float
        Cosine.
    divisions : sequence of int
        ``Dataset.divisions``: where the labels are cut.

    Returns
    -------
    dask DataFrame
        LABELS, indexed by ``row_id``: lazy, one partition per part, known divisions.

    Raises
    ------
    SettingsError
        The forest does not answer this threshold: see `dask_dedup.graph.forest_range`.
    """
    import dask.dataframe as dd

    known = range_of(forest._meta)
    if known is not None:
        known.check(threshold, "the forest")
    elif looks_inside_groups(threshold):
        logger.warning(
            "the forest does not say which thresholds it answers; one of a run (OUT/forest) lacks "
            "pairs at %g and above, unless it was searched there: dask_dedup.read_forest knows",
            SAME_SIMILARITY,
        )

    (only,) = forest.to_delayed()
    labels = delayed(label_forest)(only, threshold)
    starts, stops = divisions[:-1], [*divisions[1:-1], divisions[-1] + 1]
    return dd.from_delayed(
        [
            delayed(_labels_between)(labels, start, stop)
            for start, stop in zip(starts, stops, strict=True)
        ],
        meta=LABELS,
        divisions=tuple(divisions),
        prefix="label-components",
    )


def _labels_between(labels: pd.DataFrame, start: int, stop: int) -> pd.DataFrame:
    """Return the labels of rows ``start`` to ``stop``."""
    first, last = labels.index.searchsorted([start, stop])
    return labels.iloc[first:last]
