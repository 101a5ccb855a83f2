"""Ranks by pandas' sort; cosines to the centre by numpy, whatever is read at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dask_dedup.results.order import centre_cosines, rank_members
from dask_dedup.results.roles import NOT_DUPLICATE, UNWANTED


class Stored:
    def __init__(self, rows):
        self.rows, self.dim, self.dtype = rows, rows.shape[1], rows.dtype

    def gather(self, row_ids):
        assert (np.diff(row_ids) > 0).all()
        return self.rows[row_ids]


@pytest.mark.parametrize("kind", ["binary", "int64", None])
def test_rank_members_is_pandas_sort(kind):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"row_id": rng.permutation(3000), "role": rng.integers(0, 4, 3000)})
    frame["cluster_id"] = rng.integers(0, 300, 3000)
    frame["key"] = rng.integers(-5, 5, 3000)
    keys = {
        "binary": pa.array([bytes([key + 5, 0]) for key in frame["key"]]),
        "int64": pa.array(frame["key"]),
        None: None,
    }[kind]
    ids, clusters = frame["row_id"].to_numpy(), frame["cluster_id"].to_numpy()
    found = rank_members(clusters, ids, frame["role"].to_numpy("u1"), keys)
    by = ["cluster_id", "role", *(["key"] if kind else []), "row_id"]
    expected = frame.sort_values(by, ignore_index=True)
    assert found["row_id"].tolist() == expected["row_id"].tolist()
    groups = expected.groupby("cluster_id")
    assert (found["rank"] == groups.cumcount()).all()
    first = groups["row_id"].transform("first").where(groups["role"].transform("min") < 2, -1)
    assert found["first_row_id"].tolist() == first.tolist()


def test_rank_members_where_none_may_stay_or_there_is_none():
    roles = np.array([NOT_DUPLICATE, UNWANTED], "u1")
    found = rank_members(np.array([4, 4]), np.array([4, 5]), roles)
    assert found["first_row_id"].tolist() == [-1, -1]
    none = np.empty(0, np.int64)
    assert len(rank_members(none, none, none.astype("u1"))) == 0


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_centre_cosines_by_numpy_and_the_same_for_any_reads(dtype):
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(500, 12)) * rng.uniform(0.5, 9, (500, 1))).astype(dtype)
    ids = rng.choice(500, 400, replace=False)
    clusters = np.sort(rng.choice([0, 3, 7, 7, 7, 9], 400))
    order = np.lexsort((ids, clusters))
    ids = ids[order]
    found = centre_cosines(clusters, ids, Stored(rows))
    unit = rows.astype("f8")[ids]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    sums = pd.DataFrame(unit).groupby(clusters).transform("sum").to_numpy()
    expected = (unit * sums).sum(axis=1) / np.linalg.norm(sums, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for read_bytes in (1, 1000, 10_000):
        again = centre_cosines(clusters, ids, Stored(rows), read_bytes)
        np.testing.assert_array_equal(again, found)


def test_centre_cosines_of_rows_that_cancel_out():
    rows = np.array([[1, 0], [-1, 0]], "f4")
    found = centre_cosines(np.array([0, 0]), np.array([0, 1]), Stored(rows))
    assert np.isfinite(found).all()
