import numpy as np
import pytest

from dask_dedup.compressors.pca_compressor import fit_uncentred_axes


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(160, 12)) * np.arange(1, 13) + 2)


def test_fit_uncentred_axes_equals_numpys_svd(samples):
    axes, share = fit_uncentred_axes(samples, 5)
    _, values, vectors = np.linalg.svd(samples.astype("f8"), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(axes.T * vectors[:5], axis=1)), 1, atol=1e-5)
    assert share == pytest.approx((values[:5] ** 2).sum() / 160, rel=1e-5)


def test_fit_uncentred_axes_of_all_dimensions_changes_no_product(samples):
    axes, share = fit_uncentred_axes(samples, 12)
    image = samples @ axes
    np.testing.assert_allclose(image @ image.T, samples @ samples.T, atol=1e-5)
    assert share == pytest.approx(1)


def test_fit_uncentred_axes_passes_over_what_is_left_out(samples):
    left_out = np.arange(160) % 3 == 0
    some, _ = fit_uncentred_axes(samples, 3, left_out)
    alone, _ = fit_uncentred_axes(samples[~left_out], 3)
    np.testing.assert_array_equal(some, alone)


@pytest.mark.parametrize("rows", [1, 3])
def test_fit_uncentred_axes_of_fewer_rows_than_axes_are_orthonormal(samples, rows):
    axes, share = fit_uncentred_axes(samples[:rows], 6)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-6)
    assert share == pytest.approx(1)
