import numpy as np
import pytest
import torch

from dask_dedup.search import sign_filter
from dask_dedup.search.sign_filter import (
    factors,
    near_pairs,
    near_products,
    within,
)


def find(rows, columns, radius, usable=None, first=(0, 0)):
    left, right = factors(rows, radius, usable)[0], factors(columns, radius)[1]
    hits = near_pairs(torch.mm(left, right.T), *first)
    return set(zip(*(side.tolist() for side in hits), strict=True))


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
    found = find(rows, rows, 3.0, first=(1, 1))
    assert found == {(i, j) for i, j in find(rows, rows, 3.0) if j > i}
    assert found
    assert find(rows, rows, 3.0, first=(-10, 1)) >= found
    assert not find(rows, rows, 3.0, first=(60, 0))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("product", [(8192, 32_768), (7, 11)])
def test_near_products_on_a_device_equal_those_of_the_processor(rows, monkeypatch, upper, product):
    """The way of a GPU, with the CPU as the device."""
    monkeypatch.setattr(sign_filter, "_DEVICE_PRODUCT", product)
    left, right = factors(rows, 3.0)
    ways = [
        near_products(left, right, upper),
        sign_filter._near_products_there(left, right, upper, torch.device("cpu")),
    ]
    one, other = (
        sorted((a, b) for i, j in way for a, b in zip(i.tolist(), j.tolist(), strict=True))
        for way in ways
    )
    assert one == other
    assert len(one) > 60


@pytest.mark.parametrize("radius", [0.5, 2.5, 3.5, 10.0])
def test_within_equals_brute_force(rows, columns, radius):
    i, j = (side.ravel() for side in np.indices((60, 150)))
    near = torch.cdist(rows.double(), columns.double()).numpy() <= radius
    np.testing.assert_array_equal(within(rows.numpy(), columns.numpy(), i, j, radius), near.ravel())


@pytest.mark.parametrize("radius", [0.5, 2.5, 3.5])
def test_short_factors_pass_every_near_pair(rows, columns, radius):
    left, right = factors(rows, radius, short=True)[0], factors(columns, radius, short=True)[1]
    assert left.shape == (60, 7)
    passed = torch.mm(left, right.T).numpy() >= -1e-5
    whole = torch.cdist(rows.double(), columns.double()).numpy() <= radius
    assert passed[whole].all()
    images = [torch.cat([x[:, :4], x[:, 4:].norm(dim=1, keepdim=True)], 1) for x in (rows, columns)]
    distances = torch.cdist(*(image.double() for image in images)).numpy()
    clear = abs(distances - radius) > 1e-5
    np.testing.assert_array_equal(passed[clear], (distances <= radius)[clear])


def test_unusable_rows_are_near_to_nothing(rows):
    usable = np.ones(60, np.bool_)
    usable[[3, 8]] = False
    assert {i for i, _ in find(rows, rows, 0.1, usable)} == set(range(60)) - {3, 8}
