"""Edges near the threshold, and long paths: by pandas and breadth-first search over the forest."""

from collections import deque

import numpy as np
import pandas as pd
import pytest

from dask_dedup.results.page_edges import edges_near, long_paths


@pytest.fixture(scope="module")
def forest(finished):
    return pd.read_parquet(finished.out / "forest")


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("threshold", [0.9, 0.95, 0.97, 1.0])
@pytest.mark.parametrize("count", [1, 20, 10_000])
def test_edges_near_are_the_nearest_on_their_side(finished, forest, above, threshold, count):
    found = edges_near(finished.result.out, 650, threshold, count, above)
    similarity = forest["similarity"]
    side = forest[(similarity >= np.float32(threshold)) == above]
    wanted = side.sort_values(["similarity", "src", "dst"], ascending=[above, True, True])[:count]
    pd.testing.assert_frame_equal(found, wanted.reset_index(drop=True))


def depths(forest, root):
    """Edges from each row of a tree to its root, by breadth-first search."""
    near = {}
    for src, dst in forest[["src", "dst"]].itertuples(index=False):
        near.setdefault(src, []).append(dst)
        near.setdefault(dst, []).append(src)
    depth, waiting = {root: 0}, deque([root])
    while waiting:
        row = waiting.popleft()
        for other in near.get(row, ()):
            if other not in depth:
                depth[other] = depth[row] + 1
                waiting.append(other)
    return depth


def test_long_paths_are_those_of_the_rows_and_the_longest(finished, forest):
    rows = pd.read_parquet(finished.out / "clusters")
    linked = forest[forest["similarity"] >= np.float32(0.95)]
    other = rows[~rows["is_representative"] & rows["is_valid"]]
    least = other.sort_values("similarity_to_representative").drop_duplicates("cluster_id")[:5]
    found = long_paths(finished.result.out, finished.result.files, least, 0.95)
    for row, cluster in least[["row_id", "cluster_id"]].itertuples(index=False):
        depth = depths(linked, cluster)
        own = [path for path in found if path.cluster_id == cluster]
        assert own[0].row_id == row
        assert len(own[0].edges) == depth[row]
        assert len(own[-1].edges) == max(depth.values())
        assert own[-1].is_longest
        for path in own:
            assert path.edges["from_row"].iloc[0] == path.row_id
            assert path.edges["to_row"].iloc[-1] == cluster
            assert path.edges["similarity"].min() >= np.float32(0.95)


def test_long_paths_of_no_rows_are_none(finished):
    none = pd.DataFrame({"row_id": [], "cluster_id": [], "cluster_size": []})
    assert long_paths(finished.result.out, finished.result.files, none, 0.95) == []
