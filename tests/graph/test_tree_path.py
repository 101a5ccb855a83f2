"""Paths in a forest, against a depth-first search and bottlenecks by brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from dask_dedup.graph.forest import forest_of_edges
from dask_dedup.graph.stream import read_weighted_edges
from dask_dedup.graph.tree_path import edges_inside, edges_joining, hang_tree, path_between
from dask_dedup.schema import FOREST
from dask_dedup.storage.files import write_frame

ROWS = 60


def edge_frame(edges):
    frame = pd.DataFrame(edges, columns=["src", "dst", "similarity"])
    return frame.astype(FOREST.dtypes)


@pytest.fixture(scope="module")
def edges():
    """Edges among 60 rows, of which the last ten are in none; many similarities are equal."""
    rng = np.random.default_rng(5)
    pairs = np.unique(np.sort(rng.integers(0, 50, (90, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    similarity = rng.integers(80, 100, len(pairs)) / 100
    return edge_frame(np.column_stack([pairs, similarity]))


@pytest.fixture(scope="module")
def forest_path(edges, tmp_path_factory):
    path = tmp_path_factory.mktemp("forest") / "part-00000.parquet"
    write_frame(path, forest_of_edges(edges))
    return path


def bottlenecks(edges):
    """The best of all ways between any two rows, each as good as its weakest pair: max-min."""
    best = np.full((ROWS, ROWS), -np.inf, "f4")
    best[edges["src"], edges["dst"]] = best[edges["dst"], edges["src"]] = edges["similarity"]
    np.fill_diagonal(best, np.inf)
    for through in range(ROWS):
        best = np.maximum(best, np.minimum(best[:, [through]], best[[through]]))
    return best


def depth_first(edges, start, goal):
    """The way between two rows of a tree, as a list of rows; None where there is none."""
    beside = {}
    for src, dst in zip(edges["src"], edges["dst"], strict=True):
        beside.setdefault(src, []).append(dst)
        beside.setdefault(dst, []).append(src)
    waiting = [[start]]
    while waiting:
        way = waiting.pop()
        if way[-1] == goal:
            return way
        waiting += [[*way, row] for row in beside.get(way[-1], ()) if row not in way[-2:]]
    return None


def test_path_between_is_the_way_of_the_tree_and_its_weakest_edge_the_bottleneck(
    edges, forest_path
):
    """Over all pairs of rows, from the edges that `edges_joining` finds in the file."""
    best, forest = bottlenecks(edges), forest_of_edges(edges)
    similarity = {
        frozenset(pair): s
        for *pair, s in zip(forest["src"], forest["dst"], forest["similarity"], strict=True)
    }
    assert np.isneginf(best).any()
    for one in range(0, ROWS, 3):
        for other in range(ROWS):
            way = depth_first(forest, one, other)
            found = edges_joining(forest_path, ROWS, one, other)
            if way is None:
                assert np.isneginf(best[one, other])
                assert found is None
                continue
            path = path_between(found, one, other)
            assert [one, *path["to_row"]] == way
            assert [*path["from_row"], other] == way
            steps = pairwise(way)
            assert path["similarity"].tolist() == [similarity[frozenset(step)] for step in steps]
            if one != other:
                (weakest,) = path.loc[path["is_weakest"], "similarity"]
                assert weakest == best[one, other] == path["similarity"].min()


def test_hang_tree_gives_the_path_of_every_row_to_one(edges):
    forest = forest_of_edges(edges)
    tree = hang_tree(forest, 7)
    for row in range(ROWS):
        way, path = depth_first(forest, row, 7), tree.path(row)
        assert (path is None) == (way is None)
        assert way is None or [row, *path["to_row"]] == way


def test_path_between_rows_of_two_trees_is_none_and_of_one_row_is_empty():
    forest = edge_frame([(1, 2, 0.9), (5, 6, 0.8)])
    assert path_between(forest, 1, 6) is None
    assert path_between(forest, 1, 3) is None
    assert path_between(forest, 3, 1) is None
    assert path_between(forest, 2, 2).empty
    assert path_between(forest, 9, 9).empty


def test_path_between_equal_similarities_marks_the_last_in_the_forest_s_order():
    forest = edge_frame([(1, 2, 0.9), (2, 3, 0.9), (3, 4, 0.95)])
    for one, other in ((1, 4), (4, 1)):
        path = path_between(forest, one, other)
        (marked,) = path[path["is_weakest"]].itertuples()
        assert {marked.from_row, marked.to_row} == {2, 3}


def test_path_of_a_hundred_thousand_links():
    rows = np.arange(100_000)
    links = edge_frame({"src": rows[:-1], "dst": rows[1:], "similarity": 0.96})
    links.loc[777, "similarity"] = np.float32(0.951)
    path = path_between(links, 99_999, 0)
    assert len(path) == 99_999
    assert path.loc[path["is_weakest"], "to_row"].tolist() == [777]


@pytest.mark.parametrize("threshold", [0.85, 0.93])
def test_edges_inside_are_those_of_the_clusters_at_the_threshold(edges, forest_path, threshold):
    forest = forest_of_edges(edges)
    linked = forest[forest["similarity"] >= np.float32(threshold)]
    label = np.arange(ROWS)
    for _ in range(ROWS):
        for src, dst in zip(linked["src"], linked["dst"], strict=True):
            label[[src, dst]] = min(label[src], label[dst])
    sizes = np.bincount(label, minlength=ROWS)
    chosen = np.argsort(sizes)[-3:]
    members = np.flatnonzero(np.isin(label, chosen))
    found = edges_inside(forest_path, ROWS, members, threshold, len(members) - 3)
    expected = linked[linked["src"].isin(members)].reset_index(drop=True)
    assert len(expected) == len(members) - 3
    pd.testing.assert_frame_equal(found, expected)
    none = edges_inside(forest_path, ROWS, np.empty(0, np.int64), threshold, 0)
    assert none.empty
    assert none.dtypes.equals(FOREST.dtypes)


def test_edges_joining_in_a_file_of_several_pieces_stop_where_the_rows_meet(tmp_path):
    """A tree in which each row hangs on an earlier one, by edges of random similarity."""
    rng = np.random.default_rng(1)
    rows = 300_000
    above = np.r_[-1, (rng.random(rows - 1) * np.arange(1, rows)).astype(int)]
    up = rng.random(rows, "f4")
    tree = edge_frame({"src": above[1:], "dst": np.arange(1, rows), "similarity": up[1:]})
    path = tmp_path / "part-00000.parquet"
    write_frame(path, forest_of_edges(tree))
    assert len(list(read_weighted_edges(path, rows, -1.0))) == 3

    def way_up(row):
        way = [row]
        while way[-1]:
            way.append(above[way[-1]])
        return way

    sizes = []
    inner = [int(np.abs(up[:9999] - level).argmin()) for level in (0.9, 0.4)]
    for one, other in ((inner[0], above[inner[0]]), (inner[1], above[inner[1]]), (5, 200_000)):
        ways = way_up(one), way_up(other)
        meeting = max(set(ways[0]) & set(ways[1]))
        steps = [row for way in ways for row in way[: way.index(meeting)]]
        found = edges_joining(path, rows, one, other)
        between = path_between(found, one, other)
        assert sorted(between["similarity"]) == sorted(up[steps])
        sizes.append(len(found))
    assert sizes[0] < sizes[1] < sizes[2]
