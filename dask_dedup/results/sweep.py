"""What a run would have found at other thresholds: from its forest alone, in one pass.

A forest has the clusters of every threshold in its range. Its edges are read in falling order of
similarity, and joined by a union-find: 8 bytes a row of the data set, or of the linked rows, where
they are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dask_dedup.errors import SettingsError
from dask_dedup.graph.forest_range import ForestRange
from dask_dedup.graph.stream import count_edges, read_in_order
from dask_dedup.graph.sweep import sweep_edges
from dask_dedup.paths import AnyPath
from dask_dedup.results.finished_run import FinishedRun, open_finished

__all__ = [
    "COLUMNS",
    "KeptThreshold",
    "round_thresholds",
    "sweep",
    "sweep_of",
    "sweep_or_reason",
    "threshold_of_kept",
    "usual_thresholds",
]

#: Of what `sweep` returns.
COLUMNS = (
    "threshold",
    "duplicates",
    "clusters",
    "clusters_of_two_or_more",
    "largest_cluster",
    "without_edge_to_representative",
    "kept_fraction",
)
_THRESHOLDS = 180  # spaced by their distance from 1, beside the round ones
_NEAREST = 1e-4  # the least distance from 1 among them
_COMPACT_EDGES = 8  # rows per edge from which on the linked rows alone are numbered


class KeptThreshold(NamedTuple):
    """A threshold, the share of the valid rows (0 to 1) that it keeps, and the rows it drops."""

    threshold: float
    kept_fraction: float
    duplicates: int


def sweep(out: str | AnyPath, thresholds: Sequence[float] | None = None) -> pd.DataFrame:
    """Count duplicates and clusters of a finished run at many thresholds; computes.

    Each row equals what a run of its own would find, given a search that has missed the same pairs.

    Parameters
    ----------
    out : path or URL
        OUT of a finished run.
    thresholds : sequence of float, optional
        Cosines; by default `usual_thresholds` of the forest, and the run's own.

    Returns
    -------
    DataFrame
        In the order of the thresholds (by default rising): ``threshold``; ``duplicates``;
        ``clusters``, single rows counted; ``clusters_of_two_or_more``; ``largest_cluster``, in
        rows; ``without_edge_to_representative``, the duplicates without an edge of the forest, at
        or above the threshold, to the smallest row of their cluster; ``kept_fraction``, the share
        of the valid rows that are no duplicates (0 to 1).

    Raises
    ------
    OutputError
        OUT holds no finished run.
    SettingsError
        The forest does not answer one of the thresholds, or holds quantized distances.

    Notes
    -----
    ``without_edge_to_representative`` is an upper bound of the rows that are joined through others
    only, which ``linked_through_others`` of ``summary.json`` counts by their cosines: the forest
    lacks most of the pairs that are similar, and a row can be near its representative without an
    edge to it. What it needs is two reads of the forest, 250 MB for the edges at hand, and 8 bytes
    a row.
    """
    return sweep_of(open_finished(out), thresholds)


def sweep_of(run: FinishedRun, thresholds: Sequence[float] | None = None) -> pd.DataFrame:
    """Do what `sweep` does, of a run that is open."""
    known = run.forest_range()
    if thresholds is None:
        own = float(run.summary["threshold"])
        found = {*usual_thresholds(known), *([own] if known.answers(own) else [])}
        thresholds = sorted(found)
    for threshold in thresholds:
        known.check(threshold, str(run.forest_path))
    path = run.forest_path
    edges, nodes = count_edges(path)
    pieces = read_in_order(path)
    if nodes > _COMPACT_EDGES * edges:
        ids = _linked_rows(path)
        nodes, pieces = len(ids), _renumbered(pieces, ids)
    counts = sweep_edges(pieces, nodes, thresholds)
    clusters = run.valid_rows - counts["duplicates"]
    counts.insert(2, "clusters", clusters)
    counts["largest_cluster"] = counts["largest_cluster"].clip(lower=min(run.valid_rows, 1))
    counts["kept_fraction"] = clusters / run.valid_rows if run.valid_rows else 1.0
    assert tuple(counts) == COLUMNS
    return counts


def sweep_or_reason(run: FinishedRun) -> tuple[pd.DataFrame | None, str]:
    """Return what `sweep_of` tells of a run, or None and why there is no such thing."""
    try:
        return sweep_of(run), ""
    except SettingsError as error:
        return None, str(error)


def usual_thresholds(known: ForestRange) -> list[float]:
    """Return some 200 thresholds that a forest answers, denser towards 1, rising.

    `round_thresholds`, and others whose distances from 1 rise by equal factors, cut to five digits.
    """
    last = _NEAREST if known.below is None else max(1 - known.below, _NEAREST)
    spaced: set[float] = set()
    if last < 1 - known.lowest:
        distances = np.geomspace(1 - known.lowest, last, _THRESHOLDS)
        spaced = {round(float(1 - distance), 5) for distance in distances}
    return sorted(filter(known.answers, {known.lowest, *round_thresholds(known), *spaced}))


def round_thresholds(known: ForestRange) -> list[float]:
    """Return up to some 25 round thresholds that a forest answers, its lowest first."""
    span = 1 - known.lowest
    steps = next((n for n, most in ((200, 0.08), (100, 0.16), (50, 0.3)) if span < most), 20)
    coarse = {step / steps for step in range(1, steps)}
    fine = {0.99 + step / 1000 for step in range(10)}
    return sorted(
        filter(known.answers, {known.lowest, 1.0, *(round(one, 5) for one in coarse | fine)})
    )


def threshold_of_kept(out: str | AnyPath, fraction: float) -> KeptThreshold:
    """Return the highest threshold at which a run keeps at most a share of its rows.

    Parameters
    ----------
    out : path or URL
        OUT of a finished run.
    fraction : float
        Of the valid rows, above 0 and below 1: those that are no duplicates.

    Returns
    -------
    KeptThreshold
        Where the forest does not answer it (above 0.999, as a rule), the highest of
        `usual_thresholds`, which keeps fewer rows.

    Raises
    ------
    SettingsError
        Even the lowest threshold of the forest keeps more, or ``fraction`` is out of range.
    """
    if not 0 < fraction < 1:
        raise SettingsError(f"keep_fraction: expected a share above 0 and below 1, got {fraction}.")
    run = open_finished(out)
    known = run.forest_range()
    valid = run.valid_rows
    # Each edge of the forest makes one row a duplicate: the last one needed is at the threshold.
    needed = max(int(np.ceil(valid * (1 - fraction) - 1e-9)), 1)
    edges = 0
    for similarity, _, _ in read_in_order(run.forest_path):
        if edges + len(similarity) >= needed:
            wanted = float(str(similarity[needed - edges - 1]))  # shortest that is this float32
            if not known.answers(wanted):
                wanted = usual_thresholds(known)[-1]
            (found,) = sweep(out, [wanted]).itertuples()
            return KeptThreshold(wanted, float(found.kept_fraction), int(found.duplicates))
        edges += len(similarity)
    least = (valid - edges) / valid if valid else 1.0
    raise SettingsError(
        f"{run.path}: keeps {least:.4f} of its rows at {known.lowest:g}, the lowest threshold that "
        f"its forest answers; a share of {fraction:g} needs a lower one. Search anew, with "
        f"--search-threshold."
    )


def _linked_rows(path: AnyPath) -> np.ndarray:
    """Return the rows with an edge: int64, sorted."""
    ends = [np.concatenate([src, dst]) for _, src, dst in read_in_order(path)]
    return np.unique(np.concatenate(ends)) if ends else np.empty(0, np.int64)


def _renumbered(
    pieces: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], ids: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give the edges with positions in ``ids``, which are in the same order, for rows."""
    for similarity, src, dst in pieces:
        yield similarity, np.searchsorted(ids, src), np.searchsorted(ids, dst)
