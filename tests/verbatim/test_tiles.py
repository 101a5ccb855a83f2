"""Tiled distances by hand, cliques beside all subsets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from dask_dedup.verbatim.tiles import (
    EideticThresholds,
    count_within,
    find_clique,
    normalised_distance,
    tiled_distance,
    tiled_distances,
)


def _flat(*values: float) -> np.ndarray:
    """Return a picture of 2 x 2 pixels of these greys."""
    return np.repeat(np.array(values, np.float32).reshape(2, 2, 1), 3, axis=2)


def test_normalised_distance_by_hand() -> None:
    # the mean of four squares, 0.25 (0.5^2 + 0.5^2)
    left, right = _flat(0, 0, 0, 0), _flat(0.5, 0.5, 0, 0)
    assert normalised_distance(left, right) == pytest.approx(np.sqrt(0.125), rel=1e-15)


def test_tiled_distance_is_that_of_the_worst_tile() -> None:
    assert tiled_distance(_flat(0, 0, 0, 0), _flat(0.25, 0.75, 0, 0), tiles=2) == 0.75
    assert tiled_distance(_flat(0, 0, 0, 0), _flat(0.5, 0.5, 0, 0), tiles=1) == np.sqrt(0.125)


def test_tiled_distances_equal_a_loop_over_tiles() -> None:
    pictures = np.random.default_rng(5).random((7, 24, 32, 3), np.float32)
    pictures[4] = pictures[2]
    found = tiled_distances(pictures)
    for i, j in np.ndindex(7, 7):
        tiles = [
            np.sqrt(
                np.mean(
                    (
                        pictures[i, y : y + 6, x : x + 8].astype(np.float64)
                        - pictures[j, y : y + 6, x : x + 8]
                    )
                    ** 2
                )
            )
            for y in range(0, 24, 6)
            for x in range(0, 32, 8)
        ]
        assert found[i, j] == pytest.approx(max(tiles), rel=1e-12)
    assert found[2, 4] == 0


def test_tiled_distances_of_a_side_that_does_not_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="10 x 8 pixels do not cut into 4 x 4 tiles"):
        tiled_distances(np.zeros((2, 10, 8, 3)))


@pytest.mark.parametrize("seed", range(8))
def test_find_clique_is_as_large_as_the_largest_of_all_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.random((11, 11))
    distances = np.triu(distances, 1) + np.triu(distances, 1).T

    def is_clique(some: tuple[int, ...]) -> bool:
        return all(distances[i, j] <= 0.6 for i, j in combinations(some, 2))

    largest = max(k for k in range(1, 12) if any(map(is_clique, combinations(range(11), k))))
    found = find_clique(distances, 0.6, largest)
    assert len(found) == largest
    assert is_clique(tuple(found))
    assert len(find_clique(distances, 0.6, largest + 1)) == 0


def test_find_clique_does_not_change_the_distances() -> None:
    distances = np.zeros((3, 3))
    assert find_clique(distances, 0.1, 3).tolist() == [0, 1, 2]
    assert not distances.any()


def test_find_clique_of_copies_among_five_hundred() -> None:
    distances = np.full((500, 500), 0.5)
    members = np.arange(7, 500, 25)
    distances[np.ix_(members, members)] = 0.05
    np.testing.assert_array_equal(find_clique(distances, 0.1, 10), members)


def test_count_within_is_the_k_of_eidetic() -> None:
    training = np.stack([_flat(0, 0, 0, 0), _flat(0.1, 0.1, 0.1, 0.1), _flat(1, 1, 1, 1)])
    assert count_within(_flat(0, 0, 0, 0), training, 0.15) == 2
    assert count_within(_flat(0, 0, 0, 0), training, 0.05) == 1


def test_thresholds_are_the_published_ones_and_one_of_leakpro() -> None:
    assert EideticThresholds() == EideticThresholds(extracted=0.15, joined=0.1, clique=10, tiles=4)
