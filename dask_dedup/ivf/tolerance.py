"""Recall and precision of each tolerance T of the adaptive threshold.

Sampled queries with exact truth are searched for their nearest rows in an index. Of each result the
least T is known at which it passes, ``(d - epsilon) / d(q, q̂)``, or 0 where it has the query's own
code and passes always (`dask_dedup.ivf.adaptive_threshold`); sorted by it, the results give
precision and recall at every T. The same with the distance itself as the score gives the curve of a
fixed threshold, for comparison.

Recall counts each query alike (a group of a thousand rows would otherwise decide alone), and what
the search did not return at all counts as missed. Only the direction query → row is looked at;
a run also takes the other, so that it finds somewhat more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Chosen", "Scored", "choose_tolerance", "curve", "sample_curve", "score_results"]

_CURVE_POINTS = 200
_MISSING_SHARE = 0.001  # of the recall within reach that may be given up for a smaller T


@dataclass(frozen=True)
class Scored:
    """Search results of queries with known truth.

    Attributes
    ----------
    distance, self_distance : float32 arrays, shape (results,)
        d(q, x̂), and d(q, q̂) of the result's query.
    is_true : bool array, shape (results,)
    weight : float64 array, shape (results,)
        1 / true pairs of the query for a true result, 0 for another.
    queries : int
        Queries with at least one true pair.
    true_pairs : int
    """

    distance: np.ndarray
    self_distance: np.ndarray
    is_true: np.ndarray
    weight: np.ndarray
    queries: int
    true_pairs: int


@dataclass(frozen=True)
class Chosen:
    """A tolerance, and what it gives on the sample.

    Attributes
    ----------
    tolerance : float
    epsilon : float
    precision, recall : float
        ``recall`` with each query counted alike.
    reachable_recall : float
        With T at its highest: what the lists that were probed hold.
    is_reached : bool
        Whether what was wanted is reached.
    queries : int
        Queries with a true pair: what the choice depends on.
    """

    tolerance: float
    epsilon: float
    precision: float
    recall: float
    reachable_recall: float
    is_reached: bool
    queries: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


def score_results(
    query_ids: np.ndarray,
    truth: pd.DataFrame,
    distances: np.ndarray,
    row_ids: np.ndarray,
    self_distance: np.ndarray,
) -> Scored:
    """Say which results are true pairs.

    Parameters
    ----------
    query_ids : int64 array, shape (n,)
        ``row_id`` of the queries, sorted.
    truth : DataFrame
        ``query``, ``row_id``: the true pairs of the queries, without themselves.
    distances, row_ids : arrays, shape (n, k)
        Search results; queries with more than k/2 true pairs are left out, since k
        is too small to return them all.
    self_distance : float32 array, shape (n,)
    """
    k = row_ids.shape[1]
    true_query = np.searchsorted(query_ids, truth["query"].to_numpy())
    true_row = truth["row_id"].to_numpy()
    counts = np.bincount(true_query, minlength=len(query_ids))
    few = counts <= max(1, k // 2)
    known = set(zip(true_query.tolist(), true_row.tolist(), strict=True))
    query, position = np.nonzero((row_ids >= 0) & (row_ids != query_ids[:, None]) & few[:, None])
    found = row_ids[query, position]
    is_true = np.fromiter(
        (pair in known for pair in zip(query.tolist(), found.tolist(), strict=True)),
        np.bool_,
        len(query),
    )
    weight = np.where(is_true, 1.0 / np.maximum(counts[query], 1), 0.0)
    return Scored(
        distances[query, position],
        self_distance[query],
        is_true,
        weight,
        int((few & (counts > 0)).sum()),
        int(counts[few].sum()),
    )


def curve(scored: Scored, epsilon: float | None, rounding: float = 0.0) -> pd.DataFrame:
    """Return precision and recall at every value of T, or of a fixed threshold.

    Parameters
    ----------
    scored : Scored
    epsilon : float or None
        Of the adaptive rule; None gives the curve of a fixed threshold on the distance.
    rounding : float
        Results within d(q, q̂) + rounding pass at every T: they have the query's own code.

    Returns
    -------
    DataFrame
        ``value`` (T or distance, rising, distinct), ``precision``, ``recall`` (each query counted
        alike), ``pair_recall``, ``passed`` (pairs a query).
    """
    scores = scored.distance.astype(np.float64)
    if epsilon is not None:
        excess = np.maximum(scores - epsilon, 0.0)
        own = scored.self_distance.astype(np.float64)
        never = np.where(excess > 0, np.inf, 0.0)
        ratio = np.divide(excess, own, out=never, where=own > 0)
        scores = np.where(scores <= own + rounding, 0.0, ratio)
    order = np.argsort(scores, kind="stable")
    scores, is_true = scores[order], scored.is_true[order]
    last = np.ones(len(scores), np.bool_)
    last[:-1] = scores[1:] != scores[:-1]
    last &= np.isfinite(scores)
    true = np.cumsum(is_true)
    number = np.arange(1, len(scores) + 1)
    recall = np.cumsum(scored.weight[order]) / max(scored.queries, 1)
    return pd.DataFrame(
        {
            "value": scores[last],
            "precision": (true / number)[last],
            "recall": recall[last],
            "pair_recall": (true / max(scored.true_pairs, 1))[last],
            "passed": number[last] / max(scored.queries, 1),
        }
    )


def choose_tolerance(
    scored: Scored,
    epsilon: float,
    rounding: float = 0.0,
    *,
    recall: float | None = None,
    precision: float | None = None,
) -> Chosen:
    """Choose T: the least that reaches a recall, or the largest that keeps a precision.

    Where the wanted recall is out of reach (the lists probed do not hold so much), T is the least
    that reaches nearly all that is within it; where no T keeps the precision, T is 0, at which
    rows of the query's own code still pass.

    Parameters
    ----------
    recall, precision : float
        One of the two.
    """
    table = curve(scored, epsilon, rounding)
    if not len(table) or not scored.queries:
        return Chosen(1.0, epsilon, 1.0, 1.0, 1.0, False, scored.queries)
    reachable = float(table["recall"].iloc[-1])
    if recall is not None:
        is_reached = reachable >= recall
        wanted = recall if is_reached else reachable * (1 - _MISSING_SHARE)
        at = int((table["recall"].to_numpy() >= wanted - 1e-12).argmax())
    else:
        keeps = np.flatnonzero(table["precision"].to_numpy() >= (precision or 0.0))
        is_reached = len(keeps) > 0
        if not is_reached:
            first = table.iloc[0]
            least = (float(first["precision"]), float(first["recall"]))
            return Chosen(0.0, epsilon, *least, reachable, False, scored.queries)
        at = int(keeps[-1])
    row = table.iloc[at]
    return Chosen(
        float(row["value"]),
        epsilon,
        float(row["precision"]),
        float(row["recall"]),
        reachable,
        bool(is_reached),
        scored.queries,
    )


def sample_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Return at most 200 rows of a curve, evenly over its results."""
    if len(table) <= _CURVE_POINTS:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, _CURVE_POINTS).round().astype(int)]
