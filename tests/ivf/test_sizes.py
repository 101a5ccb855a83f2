"""The sizes of the finder adc: the index by the number of rows, and what it is trained on."""

import pytest

from dask_dedup.ivf.sizes import default_factory, training_rows


@pytest.mark.parametrize(
    ("count", "dim", "expected"),
    [
        (9_999, 512, "SQ8"),
        (16_827, 512, "PCA64,IVF512,PQ16"),
        (10**6, 64, "IVF4096,PQ16"),
        (2 * 10**9, 128, "PCA64,IVF131072,PQ16"),
        (10**6, 12, "IVF4096,PQ4"),
        (10**6, 7, "IVF4096,PQ1"),
    ],
)
def test_default_factory(count, dim, expected):
    assert default_factory(count, dim) == expected


@pytest.mark.parametrize(
    ("lists", "dim", "expected"),
    [(0, 8, 65_536), (1024, 8, 65_536), (2048, 64, 131_072), (2**20, 512, 2**20)],
)
def test_training_rows_are_64_for_each_list_within_bounds(lists, dim, expected):
    assert training_rows(lists, dim) == expected
