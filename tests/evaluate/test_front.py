import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.evaluate.front import pareto_front, recall_with_ties


def test_pareto_front_by_hand():
    points = np.array(
        [
            [1, 9],  # fastest
            [3, 7],
            [3, 5],  # beaten by the one before in one measure, equal in the other
            [2, 7],  # likewise
            [5, 2],
            [5, 2],  # equal to it: both stay
            [4, 1],  # beaten in both
        ],
        float,
    )
    assert pareto_front(points).tolist() == [True, True, False, False, True, True, False]
    # With a third measure in which it is best, the last one stays, too.
    third = np.array([[0], [0], [0], [0], [0], [0], [1]])
    assert pareto_front(np.hstack([points, third])).tolist()[-1]


def test_pareto_front_of_nothing_and_of_one():
    assert pareto_front(np.empty((0, 2))).tolist() == []
    assert pareto_front(np.ones((1, 3))).tolist() == [True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_pareto_front_dominates_all_others_and_nothing_inside(values):
    points = np.array(values, float)
    front = points[pareto_front(points)]
    assert len(front)
    for point in points:
        assert (front >= point).all(axis=1).any()
    for one in front:
        assert not ((front >= one).all(axis=1) & (front > one).any(axis=1)).any()


def test_recall_with_ties_by_hand():
    true = np.array([[0.9, 0.8, 0.8, 0.1], [0.7, 0.6, 0.5, 0.4]])
    found = np.array(
        [
            [0.8, 0.8, 0.9, -np.inf],  # a third row at 0.8 is as good as those the truth lists
            [0.7, 0.4, -np.inf, -np.inf],
        ]
    )
    measures = recall_with_ties(found, true, (1, 2, 3, 4), 0.0)
    assert measures["recall@1"] == (0 + 1) / 2
    assert measures["recall@2"] == (2 / 2 + 1 / 2) / 2
    assert measures["recall@3"] == (3 / 3 + 1 / 3) / 2
    assert measures["recall@4"] == (3 / 4 + 2 / 4) / 2


def test_recall_with_ties_epsilon_decides_at_the_bound():
    found, true = np.array([[0.899]]), np.array([[0.9]])
    assert recall_with_ties(found, true, (1,), 1e-4)["recall@1"] == 0
    assert recall_with_ties(found, true, (1,), 1.1e-3)["recall@1"] == pytest.approx(1)
