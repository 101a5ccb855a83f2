"""Retrieval across modalities: is a caption's own image among the k nearest, and the reverse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dask_dedup.errors import InputError
from dask_dedup.evaluate.ranks import rank_own_target, share_within

__all__ = ["retrieval_recall"]


def retrieval_recall(
    queries: np.ndarray, targets: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float | int]:
    """Recall of each query's own target among the k nearest by cosine.

    Row i of the queries belongs to row i of the targets. It counts at k when fewer than k targets
    are strictly more similar: ties count in favour of the pair. Quantized targets tie often, which
    flatters coarse codes: "split@k" is the recall with ties in random order (its expectation), and
    "tied" says how many pairs that concerns. A pair without usable embeddings counts as not found.

    Parameters
    ----------
    queries, targets : float arrays, shape (n, dim)
    ks : sequence of int

    Returns
    -------
    dict
        "pairs"; "recall@k" and "split@k" for each k, 0 to 1; "median_rank", 1 at best;
        "tied", the share of pairs of which another target is exactly as similar as the own.

    Raises
    ------
    InputError
        Arrays of different shapes, no rows, or a k below 1.

    Examples
    --------
    >>> texts = np.eye(3)
    >>> images = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> result = retrieval_recall(texts, images, ks=(1,))
    >>> result["recall@1"], round(result["split@1"], 3), round(result["tied"], 3)
    (1.0, 0.667, 0.667)
    """
    if len(queries) != len(targets):
        raise InputError(
            f"expected as many targets as queries, row i of one belonging to row i of the other; "
            f"got {len(queries)} queries and {len(targets)} targets."
        )
    if min(ks, default=0) < 1:
        raise InputError(f"ks: expected whole numbers from 1 on, got {list(ks)}.")
    better, tied = rank_own_target(queries, targets, np.arange(len(queries)))
    measures: dict[str, float | int] = {"pairs": len(better)}
    for k in ks:
        within = min(k, len(targets))
        measures[f"recall@{k}"] = float((better < within).mean())
        measures[f"split@{k}"] = float(share_within(better, tied, within).mean())
    measures["median_rank"] = float(np.median(better)) + 1
    measures["tied"] = float((tied > 0).mean())
    return measures
