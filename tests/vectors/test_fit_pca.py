import numpy as np
import pytest

from dask_dedup import InputError, fit_pca, read_dataset


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(300, 10)).astype("f4") + 1


def test_fit_pca_is_the_same_for_any_parts(tmp_path, write_dataset, rows):
    one = write_dataset(tmp_path / "one", [rows])
    many = write_dataset(tmp_path / "many", np.split(rows, [1, 100, 100, 250]))
    models = [fit_pca(read_dataset(path), 4, sample_rows=100) for path in (one, many)]
    np.testing.assert_array_equal(models[0].axes, models[1].axes)
    np.testing.assert_array_equal(models[0].mean, models[1].mean)


def test_fit_pca_depends_on_the_seed(tmp_path, write_dataset, rows):
    data = read_dataset(write_dataset(tmp_path / "data", [rows]))
    models = [fit_pca(data, 4, sample_rows=50, seed=seed) for seed in (0, 1)]
    assert not np.array_equal(models[0].mean, models[1].mean)


def test_fit_pca_keeps_no_more_axes_than_there_are(tmp_path, write_dataset, rows):
    assert fit_pca(read_dataset(write_dataset(tmp_path / "data", [rows])), 64).kept == 10


def test_fit_pca_without_usable_rows_is_refused(tmp_path, write_dataset):
    data = read_dataset(write_dataset(tmp_path / "data", [np.zeros((5, 3), "f4")]))
    with pytest.raises(InputError, match="none of 5 sampled embeddings is usable"):
        fit_pca(data)
