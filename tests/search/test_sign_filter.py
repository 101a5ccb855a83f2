import numpy as np
import pytest
import torch

from dask_dedup.search.sign_filter import left_factor, near_pairs, right_factor


def find(rows, columns, radius, usable=None, first_column=None):
    product = torch.mm(left_factor(rows, usable), right_factor(columns, radius).T).numpy()
    if first_column is None:
        first_column = np.zeros(len(rows), np.int64)
    return set(zip(*(side.tolist() for side in near_pairs(product, first_column)), strict=True))


@pytest.fixture
def rows():
    return torch.randn(60, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def columns():
    return torch.randn(150, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("radius", [0.5, 2.5, 3.5, 10.0])
def test_near_pairs_equal_brute_force(rows, columns, radius):
    distances = torch.cdist(rows.double(), columns.double()).numpy()
    assert np.abs(distances - radius).min() > 1e-5  # no pair so near to the border
    assert find(rows, columns, radius) == set(
        zip(*(side.tolist() for side in np.nonzero(distances <= radius)), strict=True)
    )


def test_near_pairs_pass_over_the_first_columns(rows):
    first = np.minimum(np.arange(1, 61), 60)
    found = find(rows, rows, 3.0, first_column=first)
    assert found == {(i, j) for i, j in find(rows, rows, 3.0) if j > i}
    assert found


def test_unusable_rows_are_near_to_nothing(rows):
    usable = np.ones(60, np.bool_)
    usable[[3, 8]] = False
    assert {i for i, _ in find(rows, rows, 0.1, usable)} == set(range(60)) - {3, 8}
