import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dask_dedup.graph.forest import forest_of_edges, label_forest, merge_forests
from dask_dedup.schema import EDGES, FOREST, LABELS, check_frame

EDGE_LISTS = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(0, 30), st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0])
    ).filter(lambda edge: edge[0] != edge[1]),
    max_size=80,
)


def frame(edges):
    src, dst, similarity = zip(*edges, strict=True) if edges else ((), (), ())
    table = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})
    return table.astype(EDGES.dtypes)


def components(edges, threshold, nodes=31):
    chosen = edges[edges["similarity"] >= threshold]
    graph = coo_matrix((np.ones(len(chosen)), (chosen["src"], chosen["dst"])), (nodes, nodes))
    labels = connected_components(graph, directed=False)[1]
    smallest = np.full(nodes, nodes)
    np.minimum.at(smallest, labels, np.arange(nodes))
    return smallest[labels].tolist()


@given(EDGE_LISTS)
def test_forest_of_edges_keeps_the_components_at_every_threshold(edges):
    edges = frame(edges)
    forest = check_frame(forest_of_edges(edges), FOREST, "forest")
    for threshold in (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0):
        assert components(forest, threshold) == components(edges, threshold)


@given(EDGE_LISTS)
def test_forest_of_edges_has_no_cycle_and_is_in_order(edges):
    forest = forest_of_edges(frame(edges))
    assert len(forest) == 31 - len(set(components(forest, -1)))
    assert (forest["src"] < forest["dst"]).all()
    keys = list(zip(-forest["similarity"], forest["src"], forest["dst"], strict=True))
    assert keys == sorted(keys)


@given(EDGE_LISTS, st.randoms(use_true_random=False))
def test_forest_of_edges_ignores_order_direction_and_repetition(edges, random):
    changed = [(d, s, c) if random.random() < 0.5 else (s, d, c) for s, d, c in edges]
    changed += random.sample(changed, len(changed) // 2)
    random.shuffle(changed)
    pd.testing.assert_frame_equal(forest_of_edges(frame(changed)), forest_of_edges(frame(edges)))


@given(EDGE_LISTS, st.integers(1, 5))
def test_merge_forests_in_any_partitioning_equals_the_forest_of_all(edges, pieces):
    whole = forest_of_edges(frame(edges))
    forests = [forest_of_edges(frame(edges[i::pieces])) for i in range(pieces)]
    pd.testing.assert_frame_equal(merge_forests(forests), whole)
    pd.testing.assert_frame_equal(merge_forests(forests[::-1]), whole)


def test_forest_of_edges_in_bands_equals_kruskal_on_all():
    """More edges than are sorted at once, in dense groups, with ties."""
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, 3000, (2, 400_000))
    similarity = (rng.integers(0, 5000, 400_000) / 5000).astype(np.float32)
    edges = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})
    edges = edges[edges["src"] != edges["dst"]]
    forest = forest_of_edges(edges)
    assert len(forest) == 2999
    for threshold in (0.0, 0.9, 0.99, 0.999):
        assert components(forest, threshold, 3000) == components(edges, threshold, 3000)


@pytest.mark.parametrize("shape", ["path", "star"])
def test_label_forest_of_long_paths_and_giant_stars(shape):
    nodes = 100_000
    order = np.random.default_rng(1).permutation(nodes)
    left = order[:-1] if shape == "path" else np.full(nodes - 1, order[0])
    edges = pd.DataFrame({"src": left, "dst": order[1:], "similarity": np.float32(0.97)})
    labels = label_forest(forest_of_edges(edges), 0.95)
    assert (labels["cluster_id"] == 0).all()
    assert (labels["cluster_size"] == nodes).all()
    assert len(labels) == nodes


def test_label_forest_by_hand():
    forest = frame([(5, 9, 0.99), (2, 5, 0.96), (3, 7, 0.95), (1, 3, 0.94)])
    labels = check_frame(label_forest(forest, 0.95), LABELS, "labels")
    assert labels.reset_index().to_numpy().tolist() == [
        [2, 2, 3],
        [3, 3, 2],
        [5, 2, 3],
        [7, 3, 2],
        [9, 2, 3],
    ]


def test_label_forest_threshold_is_compared_as_float32():
    forest = frame([(0, 1, np.float32(0.95))])
    assert len(label_forest(forest, 0.95)) == 2
    assert len(label_forest(forest, np.nextafter(np.float32(0.95), np.float32(1)))) == 0


def test_forest_and_labels_of_nothing_keep_the_schema():
    check_frame(forest_of_edges(EDGES), FOREST, "forest")
    check_frame(merge_forests([]), FOREST, "forest")
    check_frame(label_forest(FOREST, 0.5), LABELS, "labels")


def test_forest_of_edges_of_another_schema_is_refused():
    with pytest.raises(TypeError, match="column 'similarity' is expected to be float32"):
        forest_of_edges(EDGES.astype({"similarity": "float64"}))
