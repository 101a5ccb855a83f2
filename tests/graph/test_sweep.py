"""Counts at many thresholds from one pass, against a labelling by scipy at each of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dask_dedup.graph.forest import forest_of_edges
from dask_dedup.graph.stream import read_in_order
from dask_dedup.graph.sweep import sweep_edges
from dask_dedup.schema import EDGES
from dask_dedup.storage.files import write_frame

ROWS = 40
SIMILARITIES = [0.5, 0.75, float(np.nextafter(np.float32(0.9), 1)), 0.9, 0.96, 1.0]
EDGE_LISTS = st.lists(
    st.tuples(
        st.integers(0, ROWS - 1), st.integers(0, ROWS - 1), st.sampled_from(SIMILARITIES)
    ).filter(lambda edge: edge[0] < edge[1]),
    max_size=80,
)


def by_scipy(forest, rows, threshold):
    """Counts of one threshold: components by scipy, the rest by pandas."""
    some = forest[forest["similarity"] >= np.float32(threshold)]
    graph = coo_matrix((np.ones(len(some)), (some["src"], some["dst"])), (rows, rows))
    number, component = connected_components(graph, directed=False)
    component = pd.Series(component)
    sizes = component.value_counts()
    smallest = component.groupby(component).transform(lambda one: one.index.min())
    direct = set(some.loc[smallest[some["src"]].to_numpy() == some["src"], "dst"])
    direct |= set(some.loc[smallest[some["dst"]].to_numpy() == some["dst"], "src"])
    return {
        "threshold": threshold,
        "duplicates": rows - number,
        "clusters_of_two_or_more": int((sizes > 1).sum()),
        "largest_cluster": int(sizes.max()) if sizes.max() > 1 else 0,
        "without_edge_to_representative": sum(
            row != low and row not in direct for row, low in smallest.items()
        ),
    }


def pieces(forest, size):
    for start in range(0, len(forest), size):
        some = forest.iloc[start : start + size]
        yield tuple(some[name].to_numpy() for name in ("similarity", "src", "dst"))


@given(EDGE_LISTS, st.integers(1, 90), st.permutations([0.4, 0.75, 0.9, 0.95, 1.0, 0.9]))
def test_sweep_edges_equals_scipy_at_each_threshold(edges, size, thresholds):
    src, dst, similarity = zip(*edges, strict=True) if edges else ((), (), ())
    table = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity}).astype(EDGES.dtypes)
    forest = forest_of_edges(table)
    got = sweep_edges(pieces(forest, size), ROWS, thresholds)
    assert got.to_dict("records") == [by_scipy(forest, ROWS, t) for t in thresholds]


def test_sweep_edges_of_a_long_path_and_a_star():
    """A path of 10**5 rows hangs at its first row by one edge, a star by all of them."""
    rows = 100_000
    path = np.ones(rows - 1, np.float32), np.arange(rows - 1), np.arange(1, rows)
    star = np.ones(rows - 1, np.float32), np.zeros(rows - 1, np.int64), np.arange(1, rows)
    for edges, without in ((path, rows - 2), (star, 0)):
        (got,) = sweep_edges([edges], rows, [1.0]).to_dict("records")
        assert got["duplicates"] == rows - 1
        assert got["clusters_of_two_or_more"] == 1
        assert got["largest_cluster"] == rows
        assert got["without_edge_to_representative"] == without


@pytest.mark.parametrize("shuffled", [False, True])
def test_read_in_order_gives_the_forest_whatever_the_order_of_the_file(tmp_path, shuffled):
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 5_000, (2, 6_000)), axis=0)
    similarity = rng.choice(np.linspace(0.9, 1, 50, dtype=np.float32), 6_000)
    table = pd.DataFrame({"src": ends[0], "dst": ends[1], "similarity": similarity})
    forest = forest_of_edges(table[table["src"] < table["dst"]].reset_index(drop=True))
    path = tmp_path / "forest.parquet"
    write_frame(path, forest.sample(frac=1, random_state=0) if shuffled else forest)
    read = list(read_in_order(path, band_edges=500))
    assert max(len(piece[0]) for piece in read) <= 500
    for place, name in enumerate(("similarity", "src", "dst")):
        assert (np.concatenate([piece[place] for piece in read]) == forest[name]).all()


def test_read_in_order_of_a_forest_without_edges(tmp_path):
    write_frame(tmp_path / "forest.parquet", EDGES)
    assert list(read_in_order(tmp_path / "forest.parquet")) == []
