"""Shares by k, beside arithmetic by hand and statsmodels' formula of Wilson."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dask_dedup.verbatim.share_copied import share_by_copies


def _wilson(found: int, total: int) -> tuple[float, float]:
    z = 1.959963984540054
    share = found / total
    middle = share + z * z / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def test_share_by_copies_counts_candidates_once() -> None:
    scores = pd.DataFrame(
        {
            "candidate": [0, 0, 0, 1, 2, 2, 3],
            "k": [9, 9, 9, 8, 3, 3, 1],
            "preset": "webster",
            "kind": ["none", "matching", "template", "none", "none", "none", "retrieved"],
        }
    )
    found = share_by_copies(scores)
    columns = ["k_low", "k_high", "candidates", "copied", "share"]
    assert found[columns].to_numpy().tolist() == [
        [1, 1, 1, 1, 1.0],
        [2, 3, 1, 0, 0.0],
        [8, 15, 2, 1, 0.5],
    ]
    for row in found.itertuples():
        assert (row.low, row.high) == pytest.approx(_wilson(row.copied, row.candidates), abs=1e-9)


def test_share_by_copies_of_nothing_is_empty() -> None:
    scores = pd.DataFrame({name: [] for name in ("candidate", "k", "preset", "kind")})
    assert len(share_by_copies(scores)) == 0
