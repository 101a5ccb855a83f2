from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dask_dedup import read_dataset
from dask_dedup.data.part_rows import PartRows
from dask_dedup.graph.forest import label_forest, spanning_edges
from dask_dedup.ivf import faiss_index as ivfpq
from dask_dedup.ivf.adaptive_threshold import AdaptiveRule, AdcSearch, PairEdges
from dask_dedup.ivf.train_base import train_base


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype("f4")


@pytest.fixture(scope="module")
def rows():
    """Groups of 1 to 40 near-copies."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((60, 16))
    sizes = np.r_[40, 17, np.repeat([1, 2, 3], [30, 20, 8])]
    spread = np.repeat(centres, sizes, axis=0)
    return unit(spread + 0.02 * rng.standard_normal(spread.shape))


def passed_pairs(rows, rule, factory="IVF8,PQ4x6", k=4, nprobe=8, cuts=()):
    base = train_base(rows, factory)
    shards = []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        shard = ivfpq.empty_shard(base)
        ivfpq.add_rows(shard, rows[start:stop], np.arange(start, stop))
        shards.append(shard)
    search = AdcSearch(base, shards, rule, k, nprobe)
    found = [
        (int(query), int(row))
        for passed in search.search(rows, np.arange(len(rows)))
        for query, row in zip(passed.query, passed.row_id, strict=True)
    ]
    assert len(found) == len(set(found))
    return set(found), search


def by_hand(rows, rule, factory="IVF8,PQ4x6"):
    """All pairs that pass by encode and decode, in float64."""
    base = train_base(rows, factory)
    kept = base.sa_decode(base.sa_encode(rows)).astype("f8")
    distances = ((rows[:, None].astype("f8") - kept) ** 2).sum(axis=2)
    own = distances.diagonal()[:, None]
    passes = distances <= np.maximum(rule.tolerance * own + rule.epsilon, own + rule.rounding)
    return {(i, j) for i, j in np.argwhere(passes).tolist() if i != j}


@pytest.mark.parametrize("k", [2, 4, 1000])
@pytest.mark.parametrize("cuts", [(), (1,), (50, 51)])
def test_search_finds_what_encode_and_decode_say_whatever_k_and_shards(rows, k, cuts):
    rule = AdaptiveRule(1.3, 1e-5, 1e-5)
    found, _ = passed_pairs(rows, rule, k=k, cuts=cuts)
    assert found == by_hand(rows, rule)


def test_search_group_larger_than_k_comes_out_whole_and_its_rows_count_as_saturated(rows):
    found, search = passed_pairs(rows, AdaptiveRule(0.0, 0.3, 1e-5), "IVF8,Flat", k=4)
    group = {(i, j) for i in range(40) for j in range(40) if i != j}
    assert group <= found
    big = 40 + 17  # rows of groups with at least k rows: 4 results, the row itself among them
    assert search.saturated == big
    assert search.largest_k == 64
    _, roomy = passed_pairs(rows, AdaptiveRule(0.0, 0.3, 1e-5), "IVF8,Flat", k=50)
    assert (roomy.saturated, roomy.largest_k) == (0, 50)


def test_search_a_larger_tolerance_finds_no_less(rows):
    pairs = [passed_pairs(rows, AdaptiveRule(t, 1e-5, 1e-5))[0] for t in (0.0, 0.8, 1.0, 1.5, 3.0)]
    for smaller, larger in pairwise(pairs):
        assert smaller <= larger
    assert len(pairs[0]) < len(pairs[-1])


@pytest.mark.parametrize("factory", ["Flat", "IVF1,Flat", "IVF2,SQ8"])
def test_search_rows_all_equal_pass_even_where_their_own_distance_is_zero(factory):
    rows = np.tile(unit(np.arange(1.0, 9)[None]), (33, 1))
    found, search = passed_pairs(rows, AdaptiveRule(1.0, 1e-5, 1e-5), factory, k=4)
    assert len(found) == 33 * 32
    assert search.saturated == 33
    if factory != "IVF2,SQ8":
        assert (ivfpq.self_distances(search.base, rows) == 0).all()


def test_limits_by_hand():
    limits = AdaptiveRule(0.5, 0.25, 0.125).limits(np.array([0.0, 0.25, 4.0], "f4"))
    assert limits.tolist() == [0.25, 0.375, 4.125]


def edges_of(parts, pairs, threshold, distance=0.125):
    edges = PairEdges(PartRows(parts), threshold, spanning_edges)
    for i, j in pairs:
        edges.add(np.array([i]), np.array([j]), np.array([distance], "f4"))
    return edges


@pytest.mark.parametrize("batch", [1, 2, 10**6])
def test_pair_edges_verified_equal_scipys_components(rows, tmp_path, write_dataset, batch):
    data = read_dataset(write_dataset(tmp_path / "d", [rows[:50], rows[50:]]))
    cosine = rows.astype("f8") @ rows.astype("f8").T
    pairs = np.argwhere(np.triu(cosine > 0.5, 1))
    edges = PairEdges(PartRows(data.parts), 0.95, spanning_edges)
    edges._batch = batch
    for some in np.array_split(pairs, 7):
        edges.add(some[:, 1], some[:, 0], np.zeros(len(some), "f4"))
    forest = edges.finish()
    labels = label_forest(forest, 0.95)
    ours = np.arange(len(rows))
    ours[labels.index] = labels["cluster_id"]
    linked = coo_matrix(cosine >= 0.95)
    theirs = connected_components(linked, directed=False)[1]
    groups = pd.Series(np.arange(len(rows))).groupby(theirs).transform("min")
    assert (ours == groups).all()
    assert edges.pairs == (np.triu(cosine, 1) >= 0.95).sum()


def test_pair_edges_unverified_carry_one_minus_half_the_nearer_distance(tmp_path, write_dataset):
    data = read_dataset(write_dataset(tmp_path / "d", [np.eye(3, dtype="f4")]))
    edges = edges_of(data.parts, [(0, 2)], None, 0.5)
    edges.add(np.array([2]), np.array([0]), np.array([0.25], "f4"))
    assert edges.finish().to_numpy().tolist() == [[0, 2, 0.875]]
    assert (edges.candidates, edges.pairs) == (1, 1)


def test_pair_edges_nothing_found_is_an_empty_table(tmp_path, write_dataset):
    data = read_dataset(write_dataset(tmp_path / "d", [np.eye(3, dtype="f4")]))
    assert edges_of(data.parts, [], 0.9).finish().empty
    assert edges_of(data.parts, [(0, 1)], 0.9).finish().empty
