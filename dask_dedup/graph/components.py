"""Distributed union-find: a tree of forest merges on Dask, then labels range by range of rows.

The number of rounds is the logarithm of the number of partitions and does not grow with the
diameter of the graph. The forest is in memory here; `dask_dedup.graph.on_disk` keeps it in files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from dask.delayed import Delayed, delayed

from dask_dedup.graph.forest import forest_of_edges, label_forest, merge_forests
from dask_dedup.graph.forest_file import forest_path, read_origin, read_range
from dask_dedup.graph.forest_range import (
    SAME_SIMILARITY,
    ForestRange,
    looks_inside_groups,
    range_of,
    with_range,
)
from dask_dedup.graph.origin import cut_rows, origin_of, with_origin
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

    Its components at any threshold are those of the edges, so that one search answers every
    threshold from its own up.

    Parameters
    ----------
    edges : dask DataFrame
        EDGES, from `dask_dedup.join_cells` or your own, in any number of partitions, in any order,
        repeated or not.

    Returns
    -------
    dask DataFrame
        FOREST: lazy, one partition. ``persist`` it where several thresholds are labelled, else
        each searches anew. It carries the thresholds that it answers.

    Raises
    ------
    TypeError
        When it is computed: the edges are not EDGES.

    Notes
    -----
    A tree of merges, eight forests at a time. The last one holds some 120 bytes per forest row: 12
    GB for 10^8 rows that have a duplicate. Where that is more than a worker has, at 2 * 10^9 rows
    with many duplicates, `dask_dedup.write_forest` merges through files.
    """
    import dask.dataframe as dd

    forests = [delayed(forest_of_edges)(partition) for partition in edges.to_delayed()]
    meta = with_origin(with_range(FOREST, range_of(edges._meta)), origin_of(edges._meta))
    return dd.from_delayed([merge_tree(forests)], meta=meta, prefix="spanning-forest")


def read_forest(out: str | AnyPath) -> dd.DataFrame:
    """Return the forest of a finished run, or one that `dask_dedup.write_forest` wrote.

    Parameters
    ----------
    out : path or URL
        OUT of the run, or the folder of the forest.

    Returns
    -------
    dask DataFrame
        FOREST: lazy, one partition, in memory as a whole once it is computed: 20 bytes an edge. It
        carries the thresholds that it answers; reads a header.

    Raises
    ------
    DamagedError
        There is none, or it is not what was written.
    SettingsError
        It holds quantized distances of a run with ``--no-verify``.
    """
    import dask.dataframe as dd

    path = forest_path(out)
    known = read_range(path)
    return dd.from_delayed(
        [delayed(_read_part)(str(path), known)],
        meta=with_origin(with_range(FOREST, known), read_origin(path)),
        prefix="forest",
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


def label_components(forest: dd.DataFrame, threshold: float) -> dd.DataFrame:
    """Label the components of the edges at or above a threshold.

    Parameters
    ----------
    forest : dask DataFrame
        FOREST, one partition, from `dask_dedup.spanning_forest` or `dask_dedup.read_forest`.
    threshold : float
        Cosine; compared as float32, "at least".

    Returns
    -------
    dask DataFrame
        LABELS, indexed by ``row_id``, sorted: lazy. One partition per 1,048,576 rows of the data
        set, known divisions, if the forest knows the data set: one of `dask_dedup.join_cells` does.
        One of your own edges, or of a finished run, becomes one partition of unknown divisions.

    Raises
    ------
    SettingsError
        The forest does not answer this threshold: it was searched from a higher one up, or with
        dense groups, for thresholds below 0.999.
    ValueError
        The forest has several partitions: make it one with `dask_dedup.spanning_forest`.

    Notes
    -----
    One task labels, and holds some 100 bytes per row that has a duplicate; the labels, 24 bytes
    each, go to every worker that cuts them. At 2 * 10^9 rows with many duplicates, use
    `dask_dedup.write_labels`, which holds 8 bytes per row of the data set.
    """
    import dask.dataframe as dd

    known = range_of(forest._meta)
    if known is not None:
        known.check(threshold, "the forest")
    elif looks_inside_groups(threshold):
        logger.warning(
            "the forest does not say which thresholds it answers; one of a run (OUT/forest) lacks "
            "pairs at %g and above, unless it was searched there: dask_dedup.read_forest reads "
            "the range with it",
            SAME_SIMILARITY,
        )
    if forest.npartitions != 1:
        raise ValueError(
            f"the forest: expected one partition, got {forest.npartitions}. Edges, and forests of "
            f"several searches, become one with spanning_forest."
        )
    (only,) = forest.to_delayed()
    labels = delayed(label_forest)(only, threshold)
    origin = origin_of(forest._meta)
    if origin is None:
        return dd.from_delayed([labels], meta=LABELS, prefix="label-components")
    cuts = cut_rows(origin.rows)
    return dd.from_delayed(
        [delayed(_labels_between)(labels, start, stop) for start, stop in cuts],
        meta=with_origin(LABELS, origin),
        divisions=(*(start for start, _ in cuts), cuts[-1][1] - 1),
        prefix="label-components",
    )


def _labels_between(labels: pd.DataFrame, start: int, stop: int) -> pd.DataFrame:
    """Return the labels of rows ``start`` to ``stop``."""
    first, last = labels.index.searchsorted([start, stop])
    return labels.iloc[first:last]
