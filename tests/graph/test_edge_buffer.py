"""Edges of a task: components by scipy, whatever was contracted on the way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dask_dedup.graph.edge_buffer import EdgeBuffer
from dask_dedup.graph.forest import spanning_edges


def components(src, dst, similarity, threshold, rows=60):
    kept = similarity >= threshold
    graph = coo_matrix((np.ones(kept.sum()), (src[kept], dst[kept])), (rows, rows))
    return connected_components(graph, directed=False)[1].tolist()


@pytest.mark.parametrize("most_edges", [1, 137, 10_000])
def test_edge_buffer_contracted_has_the_components_of_all_its_pairs(most_edges):
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 60, (2, 900))
    one, other = one[one != other], other[one != other]
    similarity = rng.choice(np.linspace(0.5, 1, 9, dtype=np.float32), len(one))
    held = []

    def contract(src, dst, similarity):
        held.append(len(src))
        return spanning_edges(src, dst, similarity)

    buffer = EdgeBuffer(contract, most_edges)
    for some in np.array_split(np.arange(len(one)), 19):
        buffer.add(one[some], other[some], similarity[some])
    src, dst, weight = buffer.edges()
    assert buffer.pairs == len(one)
    assert (src < dst).all()
    # A forest of 60 rows has 59 edges at most; a piece that is added has up to 48.
    assert max(held) <= max(most_edges - 1, 59) + 48
    assert len(held) == {1: 20, 10_000: 1}.get(most_edges, len(held))
    for threshold in (0.5, 0.75, 1.0):
        found = components(src, dst, weight, threshold)
        assert found == components(one, other, similarity, threshold)


def test_edge_buffer_without_a_rule_keeps_every_pair_from_its_smaller_row():
    buffer = EdgeBuffer(None, 1)
    assert [len(side) for side in buffer.edges()] == [0, 0, 0]
    buffer.add(np.array([5, 2]), np.array([1, 9]), np.array([0.5, 1], np.float32))
    buffer.add(np.array([5]), np.array([1]), np.array([0.5], np.float32))
    assert [side.tolist() for side in buffer.edges()] == [[1, 2, 1], [5, 9, 5], [0.5, 1, 0.5]]
