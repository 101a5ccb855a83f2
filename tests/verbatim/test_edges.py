"""Edges that all seeds share, by hand and beside a loop."""

from __future__ import annotations

import numpy as np
import pytest

from dask_dedup.verbatim.edges import common_edges

_KERNEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float64)


def _halves(at: int) -> np.ndarray:
    """Return a picture of 8 x 8, black left of a column and white from it on."""
    picture = np.zeros((8, 8, 3), np.float32)
    picture[:, at:] = 1
    return picture


def test_common_edges_counts_what_more_than_half_of_the_seeds_share() -> None:
    # a step of 1 gives a gradient of 4 in the two columns beside it
    assert common_edges(np.stack([_halves(4)] * 2)) == 16 / 64
    assert common_edges(np.stack([_halves(4)] * 2 + [_halves(2)] * 2)) == 0  # half is not more
    assert common_edges(np.stack([_halves(4)] * 3 + [_halves(2)])) == 16 / 64
    assert common_edges(np.stack([_halves(4) * 0.3] * 4)) == 0  # a gradient of 1.2


def test_common_edges_equal_a_loop() -> None:
    pictures = np.repeat(np.random.default_rng(2).random((4, 12, 9, 1)), 3, axis=3)
    count = np.zeros((12, 9), int)
    for grey in pictures.astype(np.float64).mean(axis=3):
        wide = np.pad(grey, 1, mode="symmetric")
        for y, x in np.ndindex(12, 9):
            around = wide[y : y + 3, x : x + 3]
            length = np.hypot((around * _KERNEL).sum(), (around * _KERNEL.T).sum())
            count[y, x] += length > 1.5
    expected = (count > 2).mean()
    assert 0 < expected < 1
    assert common_edges(pictures) == expected


def test_common_edges_of_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two seeds or more, got shape \(1, 4, 4, 3\)"):
        common_edges(np.zeros((1, 4, 4, 3)))
