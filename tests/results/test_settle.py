"""The last word on who stays, by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dask_dedup.results.roles import NOT_DUPLICATE, ORDINARY, PROTECTED, UNWANTED
from dask_dedup.results.settle import rows_to_settle, settle


class Stored:
    def __init__(self, rows):
        self.rows, self.dim, self.dtype = rows, rows.shape[1], rows.dtype

    def gather(self, row_ids):
        return self.rows[row_ids]


def members_of(*rows):
    """row_id, cluster_id, rank, role, first_row_id, witness_row_id"""
    names = ["row_id", "cluster_id", "rank", "role", "first_row_id", "witness_row_id"]
    return pd.DataFrame(rows, columns=names).set_index("row_id")


def rows_of(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("f4")


def test_rows_to_settle_leaves_out_the_first_its_followers_and_what_is_no_duplicate():
    members = members_of(
        (0, 0, 1, ORDINARY, 1, 1),
        (1, 0, 0, ORDINARY, 1, 1),
        (2, 0, 2, ORDINARY, 1, 2),
        (3, 0, 3, ORDINARY, 1, 2),
        (4, 0, 4, UNWANTED, 1, -1),
        (5, 0, 5, NOT_DUPLICATE, 1, 5),
        (6, 6, 0, UNWANTED, -1, -1),
    )
    assert rows_to_settle(members)["row_id"].tolist() == [2, 3, 4, 6]


@pytest.mark.parametrize("read_bytes", [1, 24, 1 << 20])
def test_settle_by_hand(read_bytes):
    stored = Stored(rows_of(np.arange(10) * 0.1))
    rows = rows_to_settle(
        members_of(
            (0, 0, 0, PROTECTED, 0, 0),
            (1, 0, 5, ORDINARY, 0, 3),  # its witness goes
            (2, 0, 1, PROTECTED, 0, 2),
            (3, 0, 3, ORDINARY, 0, 3),  # past the limit of 3
            (4, 0, 2, ORDINARY, 0, 4),
            (5, 0, 6, UNWANTED, 0, -1),
            (6, 6, 0, UNWANTED, -1, -1),
            (7, 7, 0, ORDINARY, 7, 7),
            (8, 7, 1, ORDINARY, 7, 8),
        )
    )
    found = settle(rows, 3, stored, read_bytes).set_index("row_id")
    # 1 is between 0 and 2, equally far: 0 has the smaller rank.
    assert found["witness_row_id"].to_dict() == {1: 0, 3: 2, 5: 4, 6: -1} or found[
        "witness_row_id"
    ].to_dict() == {1: 2, 3: 2, 5: 4, 6: -1}
    np.testing.assert_allclose(found["witness_similarity"], [*np.cos([0.1, 0.1, 0.1]), -1], 1e-6)
    free = settle(rows, 0, stored, read_bytes)
    assert free["row_id"].tolist() == [5, 6]
    assert settle(rows.iloc[:0], 2, stored).empty


def test_settle_gives_equals_to_the_first_by_rank():
    stored = Stored(rows_of(np.array([0.0, 0.5, 0.0, 0.0])))
    rows = rows_to_settle(
        members_of(
            (0, 0, 2, ORDINARY, 1, 0),
            (1, 0, 0, ORDINARY, 1, 1),
            (2, 0, 1, ORDINARY, 1, 2),
            (3, 0, 3, ORDINARY, 1, 3),
        )
    )
    found = settle(rows, 2, stored)
    assert found["row_id"].tolist() == [0, 3]
    assert found["witness_row_id"].tolist() == [2, 2]
    assert found["witness_similarity"].tolist() == [1, 1]
