import numpy as np
import pandas as pd
import pytest

from dask_dedup.ivf.tolerance import choose_tolerance, curve, sample_curve, score_results


@pytest.fixture
def scored():
    """Two queries of own distance 0.5 and 0.25; true pairs 10-1, 10-2, 20-3, and 20-4 unfound."""
    truth = pd.DataFrame({"query": [10, 10, 20, 20], "row_id": [1, 2, 3, 4]})
    distances = np.array([[0.1, 0.5, 0.75, 1.0, 2.0], [0.0, 0.25, 0.5, 3.0, 4.0]], "f4")
    row_ids = np.array([[10, 1, 7, 2, -1], [20, 3, 8, -1, -1]])
    return score_results(np.array([10, 20]), truth, distances, row_ids, np.array([0.5, 0.25], "f4"))


def test_score_results_leaves_out_the_query_itself_and_what_is_missing(scored):
    assert scored.is_true.tolist() == [True, False, True, True, False]
    assert scored.weight.tolist() == [0.5, 0, 0.5, 0.5, 0]
    assert (scored.queries, scored.true_pairs) == (2, 4)


def test_score_results_query_with_more_pairs_than_k_could_hold_is_left_out():
    truth = pd.DataFrame({"query": [1, 1, 2], "row_id": [5, 6, 7]})
    scored = score_results(
        np.array([1, 2]), truth, np.ones((2, 2), "f4"), np.array([[5, 6], [7, 8]]), np.ones(2, "f4")
    )
    assert scored.is_true.tolist() == [True, False]
    assert (scored.queries, scored.true_pairs) == (1, 1)


def test_curve_by_hand(scored):
    # Ratios: 1 (true), 1.5 (false), 2 (true); 1 (true), 2 (false). A ratio of 1 passes always.
    table = curve(scored, 0.0)
    assert table["value"].tolist() == [0, 1.5, 2]
    assert table["precision"].tolist() == [1, 2 / 3, 3 / 5]
    assert table["recall"].tolist() == [0.5, 0.5, 0.75]
    assert table["pair_recall"].tolist() == [0.5, 0.5, 0.75]
    assert table["passed"].tolist() == [1, 1.5, 2.5]
    wide = curve(scored, 0.0, 0.25)
    assert wide["value"].tolist() == [0, 2] and wide["passed"].tolist() == [2, 2.5]
    fixed = curve(scored, None)
    assert fixed["value"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert fixed["precision"].tolist() == [1, 2 / 3, 0.5, 3 / 5]


def test_curve_with_no_own_distance_only_what_is_within_epsilon_passes(scored):
    exact = type(scored)(**{**scored.__dict__, "self_distance": np.zeros(5, "f4")})
    table = curve(exact, 0.5)
    assert table["value"].tolist() == [0]
    assert table["passed"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("asked", "tolerance", "is_reached"),
    [
        ({"recall": 0.5}, 0, True),
        ({"recall": 0.6}, 2, True),
        ({"recall": 0.9}, 2, False),
        ({"precision": 0.95}, 0, True),
        ({"precision": 0.6}, 2, True),
    ],
)
def test_choose_tolerance_by_hand(scored, asked, tolerance, is_reached):
    chosen = choose_tolerance(scored, 0.0, **asked)
    assert (chosen.tolerance, chosen.is_reached) == (tolerance, is_reached)
    assert chosen.reachable_recall == 0.75
    assert chosen.to_dict()["queries"] == 2


def test_choose_tolerance_precision_never_kept_is_zero(scored):
    wrong = type(scored)(**{**scored.__dict__, "is_true": np.zeros(5, np.bool_)})
    chosen = choose_tolerance(wrong, 0.0, precision=0.5)
    assert (chosen.tolerance, chosen.is_reached, chosen.precision) == (0, False, 0)


def test_choose_tolerance_without_truth_says_so():
    empty = score_results(
        np.array([1]),
        pd.DataFrame({"query": [], "row_id": []}, dtype=np.int64),
        np.ones((1, 2), "f4"),
        np.array([[1, -1]]),
        np.ones(1, "f4"),
    )
    chosen = choose_tolerance(empty, 0.0, recall=0.9)
    assert (chosen.tolerance, chosen.is_reached, chosen.queries) == (1.0, False, 0)


def test_sample_curve_keeps_both_ends():
    table = pd.DataFrame({"value": np.arange(10_000)})
    short = sample_curve(table)["value"]
    assert len(short) == 200 and (short.iloc[0], short.iloc[-1]) == (0, 9999)
    assert len(sample_curve(table[:50])) == 50
