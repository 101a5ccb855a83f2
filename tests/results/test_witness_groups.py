"""Groups beside a walk by hand, and arithmetic."""

from functools import partial

import numpy as np

from dask_dedup.results.witness_groups import Groups, group_rows


def no_edges():
    raise AssertionError("small clusters need no edges")


def test_group_rows_of_small_clusters_are_the_clusters_and_single_rows_are_left_out():
    rng = np.random.default_rng(0)
    row_ids = rng.permutation(1000)[:300]
    cluster_ids = row_ids // 10
    groups = group_rows(row_ids, cluster_ids, no_edges)
    found = [
        groups.row_ids[a:b].tolist()
        for a, b in zip(groups.starts[:-1], groups.starts[1:], strict=True)
    ]
    expected = [np.sort(row_ids[cluster_ids == one]).tolist() for one in np.unique(cluster_ids)]
    assert found == [group for group in expected if len(group) > 1]


def test_group_rows_of_nothing():
    none = np.empty(0, np.int64)
    groups = group_rows(none, none, no_edges)
    assert (groups.row_ids.tolist(), groups.starts.tolist(), groups.cut(5)) == ([], [0], [])


#: Of large clusters.
group_small = partial(group_rows, most=20, window_rows=8)


def random_tree(rows, rng):
    """Edges of a tree over a permutation of the rows, no two alike."""
    names = rng.permutation(rows)
    parents = np.array([rng.integers(max(0, i - 5), i) for i in range(1, rows)])
    ends = np.sort(np.column_stack([names[1:], names[parents]]), axis=1)
    return ends[:, 0], ends[:, 1], rng.permutation(np.linspace(0.9, 0.99, rows - 1)).astype("f4")


def test_group_rows_of_a_large_cluster_are_in_the_order_of_a_walk():
    rng = np.random.default_rng(1)
    src, dst, similarity = random_tree(100, rng)
    groups = group_small(rng.permutation(100), np.zeros(100, int), lambda: [(src, dst, similarity)])
    assert groups.starts.tolist() == [0, 20, 40, 60, 80, 100]
    near = {row: [] for row in range(100)}
    for a, b, how in zip(src.tolist(), dst.tolist(), similarity.tolist(), strict=True):
        near[a].append((-how, b))
        near[b].append((-how, a))
    walk = []

    def visit(row):
        walk.append(row)
        for _, other in sorted(near[row]):
            if other not in walk:
                visit(other)

    visit(0)
    # Which rows a group has is what counts.
    found = [sorted(groups.row_ids[a : a + 20].tolist()) for a in range(0, 100, 20)]
    assert found == [sorted(walk[a : a + 20]) for a in range(0, 100, 20)]


def test_group_rows_are_the_same_whichever_equal_rows_are_linked():
    """A tree over the first of each five equal rows; those are linked in a star or in a chain."""
    rng = np.random.default_rng(2)
    src, dst, similarity = random_tree(30, rng)
    firsts, all_rows = np.arange(30) * 5, np.arange(150)
    others = np.setdiff1d(all_rows, firsts)
    found = []
    for before in (others // 5 * 5, others - 1):
        edges = (
            np.concatenate([src * 5, before]),
            np.concatenate([dst * 5, others]),
            np.concatenate([similarity, np.ones(120, "f4")]),
        )
        for pieces in (1, 7):
            cuts = [np.array_split(column, pieces) for column in edges]
            groups = group_small(
                rng.permutation(all_rows),
                np.zeros(150, int),
                lambda cuts=cuts: zip(*cuts, strict=True),
            )
            found.append(groups.row_ids.tolist())
    assert all(one == found[0] for one in found)
    assert all(np.diff(np.reshape(found[0], (30, 5)), axis=1).ravel() == 1)


def test_group_rows_passes_over_edges_and_rows_of_other_clusters():
    """Rows 0 to 49 hang on row 50, which its representative is a witness of."""
    star = np.arange(50), np.full(50, 50), np.linspace(0.99, 0.9, 50).astype("f4")
    other = np.array([60, 61]), np.array([61, 62]), np.array([1, 0.9], "f4")
    row_ids = np.r_[61, np.arange(50), 60]
    groups = group_small(row_ids, np.where(row_ids < 50, 0, 60), lambda: [star, other])
    assert groups.row_ids.tolist() == [*range(50), 60, 61]
    assert groups.starts.tolist() == [0, 20, 40, 50, 52]


def test_cut_puts_groups_together_up_to_a_number_of_rows():
    groups = Groups(np.arange(20), np.array([0, 3, 5, 11, 12, 20]))
    pieces = groups.cut(5)
    assert [piece.row_ids.tolist() for piece in pieces] == [
        [*range(5)], [*range(5, 11)], [11], [*range(12, 20)],
    ]  # fmt: skip
    assert [piece.starts.tolist() for piece in pieces] == [[0, 3, 5], [0, 6], [0, 1], [0, 8]]
