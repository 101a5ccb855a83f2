from collections import Counter

import numpy as np
import pandas as pd
import pytest

from dask_dedup.results.approximate_counts import Distinct, NameCounts


def counted(names, dropped, most):
    counts = NameCounts(most=most)
    counts.add(np.array(names, object), np.ones(len(names), np.int64), np.array(dropped, np.int64))
    return counts


def merged(names, dropped, pieces, most):
    whole = NameCounts(most=most)
    for some, gone in zip(
        np.array_split(names, pieces), np.array_split(dropped, pieces), strict=True
    ):
        whole.merge(counted(list(some), list(gone), most))
    return whole


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_names_that_fit_are_counted_exactly(pieces):
    rng = np.random.default_rng(0)
    names = rng.choice(["a", "b", "c", "", "ü"], 1000, p=[0.5, 0.2, 0.2, 0.05, 0.05])
    dropped = rng.random(1000) < 0.3
    found = merged(names, dropped, pieces, 5)
    assert found.missing == 0
    assert found.frame["rows"].to_dict() == Counter(names.tolist())
    assert found.frame["dropped"].to_dict() == Counter(names[dropped].tolist())


@pytest.mark.parametrize("pieces", [1, 7])
def test_names_that_do_not_fit_are_off_by_no_more_than_is_said(pieces):
    rng = np.random.default_rng(1)
    names = np.array([f"s{i}" for i in rng.zipf(1.3, 20_000).clip(max=5000)])
    dropped = rng.random(20_000) < 0.5
    found = merged(names, dropped, pieces, 100)
    true = Counter(names.tolist())
    assert len(found.frame) == 100
    assert found.missing > 0
    for name, count in true.most_common(200):
        rows = found.frame["rows"].get(name, 0)
        assert count - found.missing <= rows <= count


def test_top_names_are_those_with_the_most_dropped_rows():
    found = counted(list("aabbbc"), [1, 1, 0, 1, 0, 0], 10).top(5)
    expected = pd.DataFrame({"name": ["a", "b"], "rows": [2, 3], "dropped": [2, 1]})
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_distinct_is_exact_as_long_as_it_fits_and_near_after():
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**64, 50_000, dtype=np.uint64)
    few, many = Distinct(), Distinct()
    for piece in np.array_split(np.tile(hashes[:1000], 3), 5):
        few.add(piece)
    for piece in np.array_split(hashes, 9):
        part = Distinct()
        part.add(piece)
        many.merge(part)
    assert (few.count, few.is_exact) == (1000, True)
    assert not many.is_exact
    assert abs(many.count / 50_000 - 1) < 0.12  # four standard errors
    assert len(many.hashes) == many.most
