import numpy as np
import pytest
import torch

from dask_dedup.search import sign_filter
from dask_dedup.search.sign_filter import near_pairs, near_products

DTYPES = [torch.float32, torch.bfloat16]


def pairs_of(products):
    return {pair for i, j in products for pair in zip(i.tolist(), j.tolist(), strict=True)}


def true_pairs(left, right, upper=False):
    at_least_0 = (left.float() @ right.float().T).numpy() >= 0
    found = np.nonzero(np.triu(at_least_0, 1) if upper else at_least_0)
    return pairs_of([found])


def whole_rows(rows, seed, dtype=torch.float32):
    """Small integers: products are exact in either type."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (rows, 9), generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_near_pairs_are_where_a_product_is_not_negative(dtype):
    left, right = whole_rows(60, 0, dtype), whole_rows(150, 1, dtype)
    product = torch.mm(left, right.T)
    assert pairs_of([near_pairs(product, 0, 0)]) == true_pairs(left, right)
    found = pairs_of([near_pairs(product, 1, 1)])
    assert found == {(i, j) for i, j in true_pairs(left, right) if j > i}
    assert pairs_of([near_pairs(product, -10, 1)]) > found
    assert not pairs_of([near_pairs(product, 150, 0)])


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("block", [512, 7])
def test_near_products_go_over_all_blocks(monkeypatch, upper, block):
    left = whole_rows(60, 2)
    right = left if upper else whole_rows(90, 3)
    expected = true_pairs(left, right, upper)
    assert pairs_of(near_products(left, right, upper, block=block)) == expected
    # The way of a GPU, with the CPU as the device.
    monkeypatch.setattr(sign_filter, "_DEVICE_BLOCK", block)
    cpu = torch.device("cpu")
    assert pairs_of(sign_filter._near_products_there(left, right, upper, cpu)) == expected


def test_near_products_of_no_row_are_none():
    assert list(near_products(torch.empty(0, 5), torch.empty(3, 5), False)) == []
    assert list(near_products(torch.empty(3, 5), torch.empty(0, 5), False)) == []
