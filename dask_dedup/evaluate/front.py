"""Two measures of searches: recall with tolerance for ties, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["pareto_front", "recall_with_ties"]


def recall_with_ties(
    found: np.ndarray, true: np.ndarray, ks: Sequence[int], epsilon: float
) -> dict[str, float]:
    """Recall at k where a result is right as soon as it is as similar as the k-th neighbour.

    Among neighbours of (nearly) one similarity no search can know which ones the truth lists, and
    data sets with duplicates are full of them.

    Parameters
    ----------
    found : float array, shape (n, at least max(ks))
        True similarity of each query's results, in the order of the results; -inf where there is
        none. No result twice.
    true : float array, shape (n, at least max(ks))
        Similarity of the true neighbours, falling.
    ks : sequence of int
    epsilon : float
        How far below the k-th true similarity a result may lie.

    Returns
    -------
    dict
        "recall@k" for each k: the mean over queries of the right ones among the first k results,
        divided by k.

    Examples
    --------
    >>> found, true = np.array([[0.5, 0.9]]), np.array([[0.9, 0.5]])
    >>> recall_with_ties(found, true, (1, 2), 0.0)
    {'recall@1': 0.0, 'recall@2': 1.0}
    """
    measures = {}
    for k in ks:
        bound = true[:, k - 1 : k].astype(np.float64) - epsilon
        measures[f"recall@{k}"] = float((found[:, :k] >= bound).mean())
    return measures


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Return which points no other point dominates.

    A point dominates another when it is at least as good in every measure, and better in one.
    Equal points do not dominate each other.

    Parameters
    ----------
    points : float array, shape (n, measures)
        Larger is better, in each column.

    Returns
    -------
    bool array, shape (n,)

    Examples
    --------
    >>> pareto_front(np.array([[1.0, 9.0], [2.0, 5.0], [2.0, 4.0]])).tolist()
    [True, True, False]
    """
    front = np.ones(len(points), bool)
    for i, point in enumerate(points):
        front[i] = not ((points >= point).all(axis=1) & (points > point).any(axis=1)).any()
    return front
