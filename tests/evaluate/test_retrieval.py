import numpy as np
import pytest

from dask_dedup.errors import InputError
from dask_dedup.evaluate.ranks import rank_own_target
from dask_dedup.evaluate.retrieval import retrieval_recall


def test_retrieval_recall_by_hand():
    queries = np.array([[5, 3, 2, 1], [5, 3, 2, 1], [5, 3, 2, 1], [1, 1, 1, 1]], np.float16)
    result = retrieval_recall(queries, np.eye(4), ks=(1, 2, 3))
    # Own ranks: first, second, third, and first of four that tie.
    assert result == {
        "pairs": 4, "recall@1": 2 / 4, "recall@2": 3 / 4, "recall@3": 1.0,
        "split@1": (1 + 1 / 4) / 4, "split@2": (2 + 2 / 4) / 4, "split@3": (3 + 3 / 4) / 4,
        "median_rank": 1.5, "tied": 1 / 4,
    }  # fmt: skip


def test_retrieval_recall_counts_equal_targets_in_favour_of_the_pair():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(53, 31))
    targets = np.repeat(rng.normal(size=(1, 31)), 53, axis=0)
    assert retrieval_recall(queries, targets)["recall@1"] == 1
    assert retrieval_recall(queries, targets)["tied"] == 1
    assert retrieval_recall(queries, targets)["split@10"] == pytest.approx(10 / 53)


def test_rank_own_target_in_blocks_is_that_in_one():
    rng = np.random.default_rng(1)
    targets = rng.normal(size=(307, 19))
    queries = targets + 2 * rng.normal(size=targets.shape)
    whole = retrieval_recall(queries, targets)
    in_blocks = rank_own_target(queries, targets, np.arange(307), scores=307 * 11)
    np.testing.assert_array_equal(in_blocks, rank_own_target(queries, targets, np.arange(307)))
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    position = [int((unit @ q > unit[i] @ q + 1e-9).sum()) for i, q in enumerate(queries)]
    assert in_blocks[0].tolist() == position
    assert whole["recall@10"] == np.mean([p < 10 for p in position])
    assert whole["median_rank"] == np.median(position) + 1


def test_retrieval_recall_pair_without_values_is_not_found():
    queries, targets = np.eye(3), np.eye(3)
    queries[0], targets[1] = np.nan, 0.0
    result = retrieval_recall(queries, targets, ks=(1, 10))
    assert (result["recall@1"], result["recall@10"]) == (1 / 3, 1 / 3)


@pytest.mark.parametrize(
    ("rows", "ks", "message"),
    [
        ((3, 4), (1,), "as many targets as queries"),
        ((3, 3), (0,), "ks: expected whole numbers from 1 on, got [0]"),
        ((3, 3), (), "ks: expected whole numbers from 1 on, got []"),
    ],
)
def test_retrieval_recall_refuses_what_does_not_fit(rows, ks, message):
    with pytest.raises(InputError) as caught:
        retrieval_recall(np.ones((rows[0], 2)), np.ones((rows[1], 2)), ks)
    assert message in str(caught.value)
