"""Memorised pictures as in Carlini et al., "Extracting Training Data from Diffusion Models" (2023).

The distance of two pictures is the Euclidean one divided by the square root of the number of
values: between 0 and 1. The *tiled* distance cuts both into 4 x 4 tiles and is the largest distance
of two tiles in one place, so that a common background is no likeness.

1. Many pictures are generated from one prompt. Those that form a clique of 10 or more, each tiled
   distance small, are probably memorised: a model does not come to one picture ten times by chance.
2. A picture is extracted if its distance to a training picture is at most 0.15. It is
   (k, l, delta)-eidetic if at most k training pictures lie within delta of it.

Published: the distance, the tiles, the clique of 10, 0.15. The tiled distance from which on two
generations are joined never was; 0.1 is that of LeakPro, another re-implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx  # type: ignore[import-untyped]
import numpy as np

__all__ = [
    "EideticThresholds",
    "count_within",
    "find_clique",
    "normalised_distance",
    "tiled_distance",
    "tiled_distances",
]

_MOST_CLIQUES = 100_000  # looked at; in graphs of generations the first ones decide


@dataclass(frozen=True)
class EideticThresholds:
    """What is called memorised.

    Attributes
    ----------
    extracted : float
        Distance to a training picture: 0.15, published.
    joined : float
        Tiled distance of two generations of one clique: 0.1, LeakPro's.
    clique : int
        Generations in a clique: 10, published.
    tiles : int
        Along each side: 4, published.
    """

    extracted: float = 0.15
    joined: float = 0.1
    clique: int = 10
    tiles: int = 4


def normalised_distance(left: np.ndarray, right: np.ndarray) -> float:
    """Return the root of the mean squared difference, in float64."""
    difference = left.astype(np.float64) - right
    return float(np.sqrt(np.mean(difference * difference)))


def tiled_distance(left: np.ndarray, right: np.ndarray, tiles: int = 4) -> float:
    """Return the largest distance of two tiles in one place.

    Parameters
    ----------
    left, right : float arrays of one shape (side, side, 3), the side a multiple of ``tiles``
    """
    return float(tiled_distances(np.stack([left, right]), tiles)[0, 1])


def tiled_distances(pictures: np.ndarray, tiles: int = 4) -> np.ndarray:
    """Return the tiled distances of all pairs: float64, shape (n, n).

    Parameters
    ----------
    pictures : float array, shape (n, side, side, 3)
    """
    n, height, width, colours = pictures.shape
    if height % tiles or width % tiles:
        raise ValueError(f"{height} x {width} pixels do not cut into {tiles} x {tiles} tiles.")
    tall, wide = height // tiles, width // tiles
    cut = pictures.reshape(n, tiles, tall, tiles, wide, colours).transpose(1, 3, 0, 2, 4, 5)
    cut = cut.reshape(tiles * tiles, n, -1)
    largest = np.zeros((n, n))
    for tile in cut:
        values = tile.astype(np.float64)
        for row in range(n):  # differences, not products: equal pictures are exactly 0 apart
            difference = values[row + 1 :] - values[row]
            mean = np.einsum("ij,ij->i", difference, difference) / values.shape[1]
            np.maximum(largest[row, row + 1 :], np.sqrt(mean), out=largest[row, row + 1 :])
    return np.maximum(largest, largest.T)


def find_clique(distances: np.ndarray, joined: float, size: int) -> np.ndarray:
    """Return a clique of at least ``size`` pictures, each two at most ``joined`` apart.

    Returns
    -------
    int64 array
        Positions, rising: the first largest clique among those that were looked at; empty where
        there is none of this size.
    """
    near = distances <= joined
    np.fill_diagonal(near, False)
    graph = nx.k_core(nx.from_numpy_array(near), size - 1)  # others have too few neighbours
    best: list[int] = []
    for number, clique in enumerate(nx.find_cliques(graph)):
        if len(clique) > len(best):
            best = clique
        if number >= _MOST_CLIQUES:
            break
    return np.sort(np.array(best if len(best) >= size else [], np.int64))


def count_within(generated: np.ndarray, training: np.ndarray, delta: float) -> int:
    """Return how many training pictures lie within ``delta``: the k of (k, l, delta)-eidetic.

    Parameters
    ----------
    generated : float array, shape (side, side, 3)
    training : float array, shape (n, side, side, 3)
    """
    return sum(normalised_distance(generated, each) <= delta for each in training)
