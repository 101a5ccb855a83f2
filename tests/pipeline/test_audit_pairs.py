import numpy as np
import pandas as pd
import pytest

from dask_dedup.pipeline.audit_pairs import AUDIT_PURPOSE, PAIRS_PER_QUERY, PairSample, read_pairs
from dask_dedup.vectors.sample import hash_rows

COLUMNS = ["query", "row_id", "similarity"]


def made_up(rng, rows, queries):
    """Pairs of some queries with many rows each, of the others with few; none twice."""
    share = np.where(np.arange(queries) % 3, 0.02, 0.9)
    query, row_id = np.nonzero(rng.random((queries, rows)) < share[:, None])
    order = np.argsort(row_id, kind="stable")  # as blocks of rows come
    similarity = rng.random(len(order)).astype("f4")
    return pd.DataFrame(
        {"query": 7 * query[order], "row_id": row_id[order], "similarity": similarity}
    )


def smallest(pairs, seed, per_query):
    """By pandas: the rows of smallest hash of each query, in the order of the pairs."""
    key = pairs["row_id"].map(lambda row: hash_rows(np.array([row]), seed, AUDIT_PURPOSE)[0])
    rank = key.groupby(pairs["query"]).rank()
    return pairs[rank <= per_query].reset_index(drop=True)


@pytest.mark.parametrize("per_query", [1, 13, 10_000])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_pair_sample_keeps_those_of_smallest_hash(per_query, pieces):
    pairs = made_up(np.random.default_rng(0), 400, 20)
    sample = PairSample(3, per_query)
    for some in np.array_split(np.arange(len(pairs)), pieces):
        sample.add(*(pairs[name].to_numpy()[some] for name in COLUMNS))
    found = sample.frame()
    pd.testing.assert_frame_equal(found, smallest(pairs, 3, per_query))
    assert (len(found) < len(pairs)) == (per_query < 10_000)


def test_pair_sample_that_turns_pairs_away_keeps_the_same():
    pairs = made_up(np.random.default_rng(1), 400, 20)
    sample, asked = PairSample(5, 13), 0
    for some in np.array_split(np.arange(len(pairs)), 9):
        query, row_id, similarity = (pairs[name].to_numpy()[some] for name in COLUMNS)
        wanted = sample.wants(query, row_id)
        asked += wanted.sum()
        sample.add(query[wanted], row_id[wanted], similarity[wanted])
        sample.frame()  # what has enough is known from here on
    pd.testing.assert_frame_equal(sample.frame(), smallest(pairs, 5, 13))
    assert asked < len(pairs) / 3


def test_pair_sample_holds_few_more_than_it_keeps():
    sample, most = PairSample(0, 50, waiting=100), 0
    for start in range(0, 100_000, 20):
        rows = np.arange(start, start + 20)
        sample.add(np.zeros(20, int), rows, np.ones(20, "f4"))
        most = max(most, sample.held)
    assert 50 < most <= 150
    assert (len(sample.frame()), sample.held) == (50, 50)


def test_pair_sample_without_pairs_is_empty():
    found = PairSample(0).frame()
    assert (len(found), [*found], [*found.dtypes]) == (0, COLUMNS, ["i8", "i8", "f4"])


def test_read_pairs_is_the_same_for_any_files(tmp_path):
    pairs = made_up(np.random.default_rng(2), 30_000, 2)
    expected = smallest(pairs, 1, PAIRS_PER_QUERY)
    for pieces in (1, 3):
        paths = []
        for some in np.array_split(np.arange(len(pairs)), pieces):
            sample = PairSample(1)
            sample.add(*(pairs[name].to_numpy()[some] for name in COLUMNS))
            paths.append(tmp_path / f"{pieces}-{len(paths)}.parquet")
            sample.frame().to_parquet(paths[-1])
        pd.testing.assert_frame_equal(read_pairs(paths, 1), expected)
    assert len(expected) < len(pairs)
