import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import beta

from dask_dedup.data.dataset import read_dataset
from dask_dedup.data.part_rows import PartRows
from dask_dedup.pipeline.audit import AuditCollector, AuditQueries, sample_queries, score
from dask_dedup.vectors.pca import fit_axes
from dask_dedup.vectors.unit import Block, prepare_block


def labels(clusters):
    smallest = {row: min(cluster) for cluster in clusters for row in cluster}
    return lambda row_ids: np.array([smallest.get(row, row) for row in row_ids.tolist()])


def pairs(*tuples):
    return pd.DataFrame(tuples, columns=["query", "row_id"], dtype=np.int64)


def test_score_by_hand():
    found = labels([[1, 2, 3], [5, 7], [11, 13]])
    true = pairs((1, 2), (1, 3), (5, 7), (5, 11), (17, 19))
    result = score(np.array([1, 5, 17, 23, 29, 31, 37]), true, found, seed=0)
    assert (result.queries, result.queries_with_pairs, result.all_united) == (7, 3, 1)
    assert (result.true_pairs, result.united_pairs) == (5, 3)
    assert result.all_united_share == 1 / 3
    assert result.pair_recall == 3 / 5
    assert result.pair_recall_low < 3 / 5 < result.pair_recall_high


@pytest.mark.parametrize(("united", "of"), [(0, 7), (5, 7), (7, 7), (311, 314)])
def test_score_interval_is_clopper_and_pearsons(united, of):
    true = pairs(*((2 * i, 2 * i + 1) for i in range(of)))
    found = labels([[2 * i, 2 * i + 1] for i in range(united)])
    result = score(np.arange(0, 2 * of, 2), true, found, seed=0)
    low = beta.ppf(0.025, united, of - united + 1) if united else 0
    high = beta.ppf(0.975, united + 1, of - united) if united < of else 1
    assert result.all_united_low == pytest.approx(low)
    assert result.all_united_high == pytest.approx(high)


def test_score_without_pairs_says_so():
    result = score(np.array([1, 2]), pairs(), labels([[3, 4]]), seed=0)
    assert (result.queries, result.queries_with_pairs) == (2, 0)
    assert result.all_united_share is None
    assert result.pair_recall is None


def collect(rows, query_ids, threshold, block_rows=100, **options):
    stored = rows.astype("f4")
    pca = fit_axes(prepare_block(stored).units(), 5)
    queries = AuditQueries(query_ids, stored[query_ids])
    collector = AuditCollector(queries, pca, threshold, seed=0, **options)
    for start in range(0, len(rows), block_rows):
        block = stored[start : start + block_rows]
        vectors = prepare_block(block)
        collector.add(Block(start, block, vectors), pca.to_codes(pca.transform(vectors)))
    return collector


def written(collector, tmp_path):
    collector.write(tmp_path / "audit.parquet")
    return pd.read_parquet(tmp_path / "audit.parquet")


@pytest.mark.parametrize("threshold", [0.7, 0.95])
def test_audit_collector_finds_what_brute_force_finds(tmp_path, threshold):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(60, 20)), 5, axis=0) + rng.normal(size=(300, 20)) / 4
    rows[7] = 0
    query_ids = np.array([0, 3, 50, 299])
    found = written(collect(rows, query_ids, threshold), tmp_path)
    with np.errstate(invalid="ignore"):
        unit = rows.astype("f4").astype("f8")
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit[query_ids] @ unit.T
    expected = {
        (query, row)
        for i, query in enumerate(query_ids)
        for row in np.flatnonzero(cosines[i] >= threshold)
        if query != row
    }
    assert set(zip(found["query"], found["row_id"], strict=True)) == expected
    assert expected


def test_audit_collector_keeps_a_limited_number_of_pairs_per_query(tmp_path):
    rows = np.ones((200, 6)) + np.arange(6)
    found = written(collect(rows, np.array([5, 77]), 0.9, per_query=13), tmp_path)
    assert found["query"].value_counts().to_dict() == {5: 13, 77: 13}
    assert found["row_id"].nunique() > 13 or len(found) == 26
    again = written(collect(rows, np.array([5, 77]), 0.9, block_rows=31, per_query=13), tmp_path)
    pd.testing.assert_frame_equal(
        found.sort_values(["query", "row_id"], ignore_index=True),
        again.sort_values(["query", "row_id"], ignore_index=True),
    )


def test_sample_queries_leaves_unusable_rows_out(tmp_path, write_dataset):
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype("f2")
    rows[::2] = np.nan
    data = read_dataset(write_dataset(tmp_path / "d", [rows[:20], rows[20:]]))
    queries = sample_queries(PartRows(data.parts), 50, seed=0)
    np.testing.assert_array_equal(queries.row_ids, np.arange(1, 50, 2))
    np.testing.assert_array_equal(queries.rows, torch.from_numpy(rows[1::2]).float().numpy())
