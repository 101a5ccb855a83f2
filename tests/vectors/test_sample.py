import numpy as np
import pytest
from scipy.stats import kstest

from dask_dedup.data.dataset import read_dataset
from dask_dedup.vectors.sample import hash_rows, sample_row_ids, split_rows


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (10, 20), (1000, 1), (100_003, 997)])
def test_sample_row_ids_are_those_of_smallest_hash(rows, size):
    chosen = sample_row_ids(rows, size, seed=5, purpose=1)
    hashes = hash_rows(np.arange(rows), 5, 1)
    expected = np.sort(np.argsort(hashes, kind="stable")[:size])
    np.testing.assert_array_equal(chosen, expected)


def test_hash_rows_are_uniform_and_independent():
    ids = np.arange(20_000)
    one, other = (hash_rows(ids, 0, purpose) / 2.0**64 for purpose in (1, 2))
    assert kstest(one, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03


def test_sample_row_ids_depend_on_the_seed():
    assert set(sample_row_ids(1000, 100, 0, 1)) != set(sample_row_ids(1000, 100, 1, 1))


def test_split_rows_covers_the_sample(clipart):
    parts = read_dataset(clipart).parts
    chosen = sample_row_ids(parts[-1].row_stop, 500, 0, 1)
    split = split_rows(chosen, parts)
    np.testing.assert_array_equal(np.concatenate([ids for _, ids in split]), chosen)
    assert all(part.row_start <= ids.min() <= ids.max() < part.row_stop for part, ids in split)
