"""The order of edges against numpy's lexsort of their own columns."""

from __future__ import annotations

import numpy as np
import pytest

from dask_dedup.graph.edge_order import edge_order, falling_key, similarity_of


@pytest.mark.parametrize("dtype", [np.uint32, np.int64])
@pytest.mark.parametrize("edges", [0, 1, 5000])
def test_edge_order_is_that_of_similarity_src_and_dst(edges, dtype):
    rng = np.random.default_rng(edges)
    similarity = rng.choice(np.linspace(-1, 1, 7, dtype=np.float32), edges)  # many are equal
    src, dst = (rng.integers(0, 40, edges).astype(dtype) for _ in range(2))
    order = edge_order(falling_key(similarity), src, dst)
    expected = np.lexsort((dst, src, -similarity.astype(np.float64)))
    for column in (similarity, src, dst):
        np.testing.assert_array_equal(column[order], column[expected])


def test_edge_order_of_ids_past_32_bits():
    key = np.array([7, 7, 7, 6], np.uint32)
    src, dst = np.array([2**33, 3, 3, 2**34]), np.array([2**33 + 1, 2**35, 2**32, 2**34 + 1])
    assert edge_order(key, src, dst).tolist() == [3, 2, 1, 0]


def test_falling_key_falls_and_comes_back():
    values = np.array([1, 0.95, 1e-40, 0, -0.0, -1e-40, -0.5, -1], np.float32)
    key = falling_key(values)
    assert (np.diff(key.astype(np.int64)) > 0).all()
    assert similarity_of(key).tobytes() == values.tobytes()
