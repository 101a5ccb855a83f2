import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.vectors.cosines import cosine_pairs, exact_rows, may_reach, short_rows


def cosines(left, right):
    i = np.arange(len(left))
    return cosine_pairs(exact_rows(left), exact_rows(right), i, i)


@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 700),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
)
def test_cosine_pairs_equal_numpy_in_float64(seed, dim, dtype):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(20, dim)).astype(dtype)
    right = (left + rng.normal(size=(20, dim)) * rng.choice([0, 1e-3, 1], (20, 1))).astype(dtype)
    a, b = left.astype("f8"), right.astype("f8")
    expected = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    found = cosines(left, right)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1.2e-7, atol=1e-7)
    np.testing.assert_array_equal(found, cosines(right, left))


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    power=st.integers(-4, 4),
)
def test_cosine_pairs_equal_rows_score_exactly_one(seed, dtype, power):
    rows = np.random.default_rng(seed).normal(size=(50, 37)) * 2.0**power
    rows = rows.astype(dtype)
    assert (cosines(rows, rows.copy()) == 1).all()
    assert (cosines(rows, -rows) == -1).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_cosine_pairs_extreme_float64_rows_neither_vanish_nor_overflow(scale):
    rows = np.array([[3.0, 4.0], [4.0, 3.0]])
    assert cosines(rows * scale, rows[::-1].copy()) == pytest.approx(24 / 25)


def test_exact_rows_leave_ordinary_values_alone():
    for dtype, wide in (("f2", "f4"), ("f4", "f4"), ("f8", "f8")):
        rows = np.array([[0.1, -2.5], [7.0, 0.0]], dtype)
        assert exact_rows(rows).dtype == np.dtype(wide)
        np.testing.assert_array_equal(exact_rows(rows), rows.astype(wide))


@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.sampled_from([1, 2, 3, 64, 511, 2000]),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    power=st.integers(-4, 4),
)
def test_may_reach_loses_no_pair_and_lets_hardly_any_through(seed, dim, dtype, power):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(60, dim))
    noise = rng.normal(size=(60, dim)) * rng.uniform(0, 0.5, (60, 1))
    rows = exact_rows((np.concatenate([left, left + noise]) * 2.0**power).astype(dtype))
    i, j = np.arange(60), np.arange(60, 120)
    true = cosine_pairs(rows, rows, i, j)
    for cosine in (*true[:5], 0.95, 1.0):
        passed = may_reach(short_rows(rows), i, j, float(cosine))
        assert passed[true >= cosine].all()
        assert not passed[true < cosine - 2 * (np.sqrt(dim) + 2) / 32767].any()


@pytest.mark.parametrize("scale", [1e-150, 1e-40, 1e-25, 1e30, 1e150])
def test_short_rows_do_not_depend_on_the_scale(scale):
    rows = np.array([[3.0, -4.0], [1.0, 0.0]])
    wide = exact_rows((rows * scale).astype("f4" if 1e-39 < scale < 1e35 else "f8"))
    np.testing.assert_array_equal(short_rows(wide), [[19660, -26214], [32767, 0]])


def test_may_reach_sums_at_the_limit_of_int32():
    rows = exact_rows(np.ones((2, 65536), np.float32))
    assert may_reach(short_rows(rows), np.array([0]), np.array([1]), 1.0).all()
