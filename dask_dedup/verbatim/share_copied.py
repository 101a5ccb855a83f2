"""The share of candidates that a model copies, against how often they are in the training data.

The claim of Webster et al.: what is duplicated most is copied most. Intervals are Wilson's.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

__all__ = ["share_by_copies"]


def share_by_copies(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the share of candidates with a copy, by k in bins of doubling width.

    Parameters
    ----------
    scores : DataFrame
        ``candidate``, ``k``, ``preset``, ``kind``.

    Returns
    -------
    DataFrame
        ``preset``, ``k_low``, ``k_high`` (both included), ``candidates``, ``copied`` (those with an
        image of a kind other than none), ``share``, and its 95 % interval ``low``, ``high``.
    """
    names = ["preset", "k_low", "k_high", "candidates", "copied", "share", "low", "high"]
    if not len(scores):
        return pd.DataFrame(columns=names)
    is_copy = (scores["kind"] != "none").rename("copied")
    each = is_copy.groupby([scores["preset"], scores["candidate"], scores["k"]]).any().reset_index()
    each["bin"] = np.log2(each["k"].clip(lower=1)).astype(np.int64)
    counts = each.groupby(["preset", "bin"])["copied"].agg(["size", "sum"]).reset_index()
    rows = []
    for row in counts.itertuples(index=False):
        found, total = int(row.sum), int(row.size)
        interval = binomtest(found, total).proportion_ci(0.95, "wilson")
        low, high = 1 << row.bin, (1 << (row.bin + 1)) - 1
        share = found / total
        rows.append((row.preset, low, high, total, found, share, interval.low, interval.high))
    return pd.DataFrame(rows, columns=names)
