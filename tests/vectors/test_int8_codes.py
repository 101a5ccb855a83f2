import numpy as np
import pytest
import torch

from dask_dedup.vectors.int8_codes import (
    _near_pairs_on_device,
    _product_of_floats,
    _product_of_int8,
    code_product,
    code_rows,
    near_pairs,
    scan_product,
    within_code_distance,
)


def codes_of(rows, seed, width=12):
    return np.random.default_rng(seed).integers(-127, 128, (rows, width)).astype(np.int8)


def squared_distances(left, right):
    return ((left[:, None].astype(int) - right[None].astype(int)) ** 2).sum(axis=2)


def pairs_of(products):
    return {pair for i, j in products for pair in zip(i.tolist(), j.tolist(), strict=True)}


def true_pairs(left, right, limit, upper=False):
    near = squared_distances(left, right) <= limit
    return pairs_of([np.nonzero(np.triu(near, 1) if upper else near)])


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("product", [(256, 4096), (7, 11)])
def test_near_pairs_are_exactly_those_within_the_limit(upper, product):
    left = codes_of(90, 0)
    right = left if upper else codes_of(150, 1)
    distances = squared_distances(left, right)
    for limit in (0, int(np.quantile(distances, 0.02)), int(distances[0, 1]), int(distances.max())):
        found = near_pairs(code_rows(left), code_rows(right), limit, upper, product=product)
        assert pairs_of(found) == true_pairs(left, right, limit, upper)


@pytest.mark.parametrize("rows", [1, 2, 255, 256])
@pytest.mark.parametrize("columns", [1, 2, 65, 1000])
@pytest.mark.parametrize("width", [4, 8, 68])
@pytest.mark.parametrize("multiply", [code_product, _product_of_int8, _product_of_floats])
def test_products_are_exact_for_odd_shapes(rows, columns, width, multiply):
    left, right = codes_of(rows, 7, width), codes_of(columns, 8, width)
    found = multiply(torch.from_numpy(left), torch.from_numpy(right))
    np.testing.assert_array_equal(found, left.astype(int) @ right.T.astype(int))


@pytest.mark.parametrize("width", [4, 68, 1028])
def test_products_are_exact_at_the_largest_code(width):
    rows = np.full((3, width), 127, np.int8)
    rows[1] = -127
    rows[2, ::2] = -127
    expected = rows.astype(int) @ rows.T.astype(int)
    for multiply in (_product_of_int8, _product_of_floats):
        found = multiply(torch.from_numpy(rows), torch.from_numpy(rows))
        np.testing.assert_array_equal(found, expected)
    distant = pairs_of(near_pairs(code_rows(rows), code_rows(rows), width * 254**2 - 1, True))
    assert (0, 1) not in distant
    assert (0, 1) in pairs_of(near_pairs(code_rows(rows), code_rows(rows), width * 254**2, True))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("product", [(8192, 32_768), (7, 11)])
@pytest.mark.parametrize("width", [12, 1020])
def test_near_pairs_on_a_device_equal_those_of_the_processor(upper, product, width, device):
    """The way of a GPU, with the CPU as the device and, where there is one, with a GPU."""
    usable = np.ones(90, np.bool_)
    usable[[4, 40]] = False
    projections = code_rows(codes_of(90, 2, width), usable)
    limit = int(
        np.quantile(squared_distances(projections.codes.numpy(), projections.codes.numpy()), 0.1)
    )
    here = pairs_of(near_pairs(projections, projections, limit, upper))
    there = pairs_of(
        _near_pairs_on_device(projections, projections, limit, upper, torch.device(device), product)
    )
    assert here == there
    assert len(here) > 100


def test_unusable_rows_are_near_to_nothing():
    usable = np.ones(20, np.bool_)
    usable[[3, 8]] = False
    projections = code_rows(codes_of(20, 3), usable)
    found = pairs_of(near_pairs(projections, projections, 1 << 27, True))
    assert found == {(i, j) for i in range(20) for j in range(i + 1, 20) if not {i, j} & {3, 8}}


def test_near_pairs_of_no_row_are_none():
    some, none = code_rows(codes_of(3, 4)), code_rows(codes_of(0, 4))
    assert list(near_pairs(some, none, 1 << 20, False)) == []
    assert list(near_pairs(none, some, 1 << 20, False)) == []


def test_scan_product_passes_over_the_first_columns():
    rows = codes_of(30, 5)
    projections = code_rows(rows)
    product = code_product(projections.codes, projections.codes)

    def found(first, step):
        hits = scan_product(product, projections.squares, projections.squares, 1 << 20, first, step)
        return pairs_of([hits])

    assert found(1, 1) == {(i, j) for i in range(30) for j in range(i + 1, 30)}
    assert found(-10, 1) == {(i, j) for i in range(30) for j in range(max(0, i - 10), 30)}
    assert found(30, 0) == set()


def test_scan_product_finds_more_pairs_than_a_row_has_columns():
    product = np.zeros((40, 3), np.int32)
    none = np.zeros(40, np.int32)
    i, j = scan_product(product, none, none[:3], 0, 0, 0)
    np.testing.assert_array_equal(i, np.repeat(np.arange(40), 3))
    np.testing.assert_array_equal(j, np.tile(np.arange(3), 40))


def test_within_code_distance_equals_brute_force():
    rows = codes_of(50, 6)
    i, j = (side.ravel() for side in np.indices((50, 50)))
    distances = squared_distances(rows, rows).ravel()
    for limit in (0, int(np.median(distances)), int(distances.max())):
        np.testing.assert_array_equal(within_code_distance(rows, i, j, limit), distances <= limit)
