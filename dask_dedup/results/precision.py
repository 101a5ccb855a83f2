"""Precision over the threshold, from what a person has said of sampled pairs.

The precision at a threshold is the share of true duplicates among the forest's edges at or above
it. The sample is stratified (`dask_dedup.results.pair_sample`): with N_b edges in bin b, of which a
share p_b of those labelled is true, it is sum(N_b p_b) / sum(N_b) over the bins from the threshold
up.

Its 95 % interval combines Wilson's score intervals [l_b, u_b] of the bins by the variances that
these imply (Zou, Huang and Zhang, 2009, "A note on confidence interval estimation for a linear
function of binomial proportions"): with weights w_b, p - sqrt(sum(w_b² (p_b - l_b)²)) and
p + sqrt(sum(w_b² (u_b - p_b)²)). Of one bin that is Wilson's interval.
"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
import pandas as pd

from dask_dedup.errors import InputError
from dask_dedup.graph.stream import read_in_order
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.finished_run import FinishedRun
from dask_dedup.storage.objects import is_file, read_content

__all__ = [
    "WantedPrecision",
    "precision",
    "precision_of",
    "read_labelled",
    "threshold_for",
    "wilson_interval",
]

_Z = 1.959963984540054  # of 95 %, two-sided
_YES = frozenset({"1", "y", "yes", "true", "duplicate"})
_NO = frozenset({"0", "n", "no", "false", "different", "not-duplicate", "not-duplicates"})
_UNSURE = frozenset({"", "?", "unsure"})
_COLUMNS = ("label", "bin", "bin_low", "bin_edges", "edges_from_low")


class WantedPrecision(NamedTuple):
    """Thresholds for a wanted precision; None where no threshold of the sample has it.

    ``estimated``: the lowest whose estimate reaches it; ``sure``: the lowest at which the lower end
    of the 95 % interval does.
    """

    estimated: float | None
    sure: float | None


def read_labelled(path: str | AnyPath) -> pd.DataFrame:
    """Read the pairs of `dask_dedup.results.pair_sample.write_pairs`, with labels in ``label``.

    ``label`` becomes 1 (the two are duplicates: 1, y, yes, true, duplicate), 0 (they are not: 0, n,
    no, false, different, not-duplicates), or NaN (empty, ? or unsure).

    Raises
    ------
    InputError
        The file is missing or no such CSV, or a label is none of these.
    """
    source = as_path(path)
    if not is_file(source):
        raise InputError(f"{source}: no such file.")
    try:
        table = pd.read_csv(BytesIO(read_content(source)), dtype=str, keep_default_na=False)
        missing = [name for name in _COLUMNS if name not in table]
        if missing:
            raise InputError(
                f"{source}: has no column {missing[0]}; expected the file of `dask-dedup sample`."
            )
        for name in _COLUMNS[1:]:
            table[name] = table[name].astype(np.float64 if name == "bin_low" else np.int64)
    except (ValueError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{source}: is not the CSV of `dask-dedup sample` ({said}).") from error
    words = table["label"].str.strip().str.lower()
    unknown = ~words.isin(_YES | _NO | _UNSURE)
    if unknown.any():
        at = int(np.flatnonzero(unknown)[0])
        raise InputError(
            f"{source}: the label of pair {at + 1} is {table['label'][at]!r}; expected yes or no, "
            f"1 or 0, or nothing where you are not sure."
        )
    table["label"] = np.where(words.isin(_YES), 1.0, np.where(words.isin(_NO), 0.0, np.nan))
    return table


def precision(pairs: pd.DataFrame) -> pd.DataFrame:
    """Estimate the precision of the forest's edges at the lower limit of each bin.

    Parameters
    ----------
    pairs : DataFrame
        From `read_labelled`.

    Returns
    -------
    DataFrame
        By rising ``threshold``: ``precision`` with ``low`` and ``high``, its 95 % interval: NaN
        where a bin at or above the threshold has no labelled pair, or is missing; ``edges`` of the
        forest at or above it; ``labelled`` pairs among them.
    """
    bins = pairs.groupby("bin").agg(
        threshold=("bin_low", "first"),
        size=("bin_edges", "first"),
        edges=("edges_from_low", "first"),
        labelled=("label", "count"),
        true=("label", "sum"),
    )
    bins = bins.sort_index(ascending=False)
    found = []
    for last in range(1, len(bins) + 1):
        some = bins.iloc[:last]
        own = some.iloc[-1]
        values = np.nan, np.nan, np.nan
        if (some["labelled"] > 0).all() and some["size"].sum() == own["edges"]:
            values = _combine(*(some[name].to_numpy() for name in ("size", "true", "labelled")))
        found.append((own["threshold"], *values, int(own["edges"]), int(some["labelled"].sum())))
    names = ["threshold", "precision", "low", "high", "edges", "labelled"]
    return pd.DataFrame(found[::-1], columns=names)


def precision_of(run: FinishedRun, path: str | AnyPath) -> pd.DataFrame:
    """Return what `precision` says of labelled pairs of a finished run; reads its forest once.

    Raises
    ------
    InputError
        The file is not what `read_labelled` reads, its pairs are not of this run's forest, or none
        is labelled.
    """
    pairs = read_labelled(path)
    found = precision(pairs)
    limits = found["threshold"].to_numpy().astype(np.float32)
    edges = np.zeros(len(limits), np.int64)
    for similarity, _, _ in read_in_order(run.forest_path):  # falling
        edges += np.searchsorted(-similarity, -limits, "right")
    if not np.array_equal(edges, found["edges"]):
        raise InputError(
            f"{path}: its pairs are not of the run in {run.path}, whose forest has other numbers "
            f"of edges in their bins. Take the file that `dask-dedup sample {run.path}` wrote."
        )
    if not pairs["label"].notna().any():
        raise InputError(
            f"{path}: no pair is labelled. Label them in the page beside it, or with yes and no in "
            f"its column label."
        )
    return found


def threshold_for(estimates: pd.DataFrame, target: float) -> WantedPrecision:
    """Return the thresholds at which a precision is reached.

    Parameters
    ----------
    estimates : DataFrame
        From `precision`.
    target : float
        0 to 1.
    """

    def lowest(name: str) -> float | None:
        reached = estimates.loc[estimates[name] >= target, "threshold"]
        return float(reached.min()) if len(reached) else None

    return WantedPrecision(lowest("precision"), lowest("low"))


def wilson_interval(successes: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's 95 % score interval of shares (Wilson, 1927): two float64 arrays."""
    share = successes / trials
    middle = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials)
    half = half * np.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    # At 0 and at the number of trials, rounding would leave the end a hair off.
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def _combine(
    sizes: np.ndarray, true: np.ndarray, labelled: np.ndarray
) -> tuple[float, float, float]:
    """Return the share of all bins together, and its 95 % interval."""
    weights, shares = sizes / sizes.sum(), true / labelled
    low, high = wilson_interval(true, labelled)
    whole = float(weights @ shares)
    below = np.sqrt(((weights * (shares - low)) ** 2).sum())
    above = np.sqrt(((weights * (high - shares)) ** 2).sum())
    return whole, max(float(whole - below), 0.0), min(float(whole + above), 1.0)
