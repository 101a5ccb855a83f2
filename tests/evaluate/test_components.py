import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dask_dedup.errors import InputError, SettingsError
from dask_dedup.evaluate.components import (
    EdgeSource,
    choose_threshold,
    compare_components,
    one_pass_labels,
    read_edges,
)


def edges(*triples):
    frame = pd.DataFrame(triples, columns=["src", "dst", "similarity"])
    return frame.astype({"src": "int64", "dst": "int64", "similarity": "float32"})


def test_one_pass_labels_leaves_two_trees_that_an_edge_joins():
    # Row 0 labels 2; row 1 finds 2 labelled, and 3 not; nothing ever unites 0 and 1.
    src, dst = np.array([0, 1, 1]), np.array([2, 2, 3])
    assert one_pass_labels(src, dst, 4).tolist() == [0, 1, 0, 1]


def test_one_pass_labels_by_hand_where_it_is_right():
    # A star and a path in rising order: each row is labelled by the one before.
    src, dst = np.array([0, 0, 3, 4, 5]), np.array([1, 2, 4, 5, 6])
    assert one_pass_labels(src, dst, 7).tolist() == [0, 0, 0, 3, 3, 3, 3]


def test_compare_components_by_hand():
    found = compare_components(
        edges(
            (10, 30, 0.99), (20, 30, 0.98), (20, 40, 0.97),  # one cluster in two pieces
            (50, 60, 0.96),  # whole
            (60, 70, 0.90),  # below the threshold
            (5, 3, 1.0),  # the other way round
        ),
        0.95,
    )  # fmt: skip
    assert found.to_dict() == {
        "threshold": 0.95, "edges": 5, "rows": 8,
        "clusters": 3, "one_pass_clusters": 4,
        "duplicates": 5, "one_pass_duplicates": 4,
        "split_clusters": 1, "missed_unions": 1, "rows_in_split_clusters": 4,
        "largest_cluster": 4, "largest_one_pass_cluster": 2, "most_pieces": 2,
        "is_forest": True,
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_compare_components_exact_side_is_scipys(seed):
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, 500, (2, 400))
    apart = src != dst
    src, dst, similarity = src[apart], dst[apart], rng.random(apart.sum(), np.float32)
    frame = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})
    found = compare_components(frame, 0.25)
    kept = similarity >= np.float32(0.25)
    count, labels = connected_components(
        coo_array((np.ones(kept.sum()), (src[kept], dst[kept])), shape=(500, 500)), directed=False
    )
    sizes = np.bincount(labels)
    assert found.clusters == (sizes > 1).sum()
    assert found.duplicates == 500 - count
    assert found.largest_cluster == sizes.max()
    # One pass never unites what is apart, and misses something in graphs like these.
    assert found.one_pass_clusters == found.clusters + found.missed_unions
    assert found.missed_unions > 0


def test_one_pass_labels_is_the_loop_that_it_describes():
    rng = np.random.default_rng(7)
    src, dst = rng.integers(0, 200, (2, 250))
    labels = {}
    for row in range(200):
        labels.setdefault(row, row)
        for other in sorted({*dst[src == row], *src[dst == row]}):
            labels.setdefault(int(other), labels[row])
    expected = [labels[labels[row]] for row in range(200)]
    assert one_pass_labels(src, dst, 200).tolist() == expected


def test_compare_components_without_edges_is_all_zero():
    found = compare_components(edges((1, 2, 0.5)), 0.95)
    assert set(found.to_dict().values()) == {0, 0.95}


def test_read_edges_takes_other_integers_and_drops_loops(tmp_path):
    frame = pd.DataFrame(
        {"src": [1, 5], "dst": [2, 5], "similarity": [0.5, 1.0], "note": ["a", "b"]}
    ).astype({"src": "int32"})
    frame.to_parquet(tmp_path / "edges.parquet")
    source = read_edges(tmp_path / "edges.parquet")
    assert source.edges.to_numpy().tolist() == [[1, 2, 0.5]]
    assert source.threshold is None


def test_read_edges_refuses_what_is_none(tmp_path):
    pd.DataFrame({"src": [1], "dst": ["x"], "similarity": [1.0]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"src": [1]}).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_text("no")
    for name, message in (
        ("a.parquet", "src and dst are expected to be integers"),
        ("b.parquet", "expected the columns src, dst and similarity, got src"),
        ("c.parquet", "expected a parquet file of edges, but it cannot be read"),
        ("d.parquet", "no such file or folder"),
        (".", "expected the output of `dask-dedup evaluate truth --queries all"),
    ):
        with pytest.raises(InputError) as caught:
            read_edges(tmp_path / name)
        assert message in str(caught.value)


def test_read_edges_refuses_the_forest_of_a_run(tmp_path):
    (tmp_path / "forest").mkdir()
    edges((1, 2, 0.99)).to_parquet(tmp_path / "forest" / "part-00000.parquet")
    (tmp_path / "summary.json").write_text('{"threshold": 0.95, "search_threshold": 0.9}')
    with pytest.raises(InputError, match=r"is the output of a run.*evaluate truth DATA PAIRS"):
        read_edges(tmp_path)


def test_compare_components_of_a_clique_is_right_where_its_forest_is_not():
    """All pairs of rows 0 to 3: row 0 sees each. Its forest 0-3, 1-3, 1-2 leaves {1, 2} apart."""
    forest = ((0, 3, 0.99), (1, 3, 0.98), (1, 2, 0.97))
    rest = ((0, 1, 0.96), (0, 2, 0.96), (2, 3, 0.96))
    whole = compare_components(edges(*forest, *rest), 0.95)
    assert (whole.missed_unions, whole.is_forest) == (0, False)
    cut = compare_components(edges(*forest), 0.95)
    assert (cut.missed_unions, cut.is_forest) == (1, True)
    assert cut.duplicates == whole.duplicates == 3
    pair = compare_components(edges((0, 3, 0.99), (5, 8, 0.99)), 0.95)
    assert not pair.is_forest  # pairs alone hold no cycle, whatever they are


def test_choose_threshold_is_not_below_what_was_searched():
    truth, file = EdgeSource(edges(), 0.9), EdgeSource(edges(), None)
    assert choose_threshold(None, truth) == 0.9
    assert choose_threshold(0.95, truth) == 0.95
    assert choose_threshold(0.2, file) == 0.2
    with pytest.raises(SettingsError, match=r"0\.8 is below 0\.9, from which on pairs"):
        choose_threshold(0.8, truth)
    with pytest.raises(SettingsError, match="give --threshold"):
        choose_threshold(None, file)
    with pytest.raises(SettingsError, match="expected a cosine from -1 to 1, got nan"):
        choose_threshold(float("nan"), file)
