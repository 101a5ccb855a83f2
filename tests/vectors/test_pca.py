import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.errors import DamagedError
from dask_dedup.vectors.pca import (
    COORDINATE_ERROR,
    filter_radius,
    fit_axes,
    load_pca,
    save_pca,
)
from dask_dedup.vectors.unit import prepare_block


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def projections(rows, kept, dtype="f4"):
    """Return projections in float64, their int8 codes, and the model."""
    model = fit_axes(torch.from_numpy(unit(rows)).float(), kept)
    projection = model.transform(prepare_block(rows.astype(dtype)))
    return projection.double().numpy(), model.to_codes(projection).numpy().astype(int), model


def test_fit_axes_equals_numpys_svd():
    rows = np.random.default_rng(0).normal(size=(200, 12)) * np.arange(1, 13)
    model = fit_axes(torch.from_numpy(rows), 5)
    centred = rows - rows.mean(axis=0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(model.axes.T * vectors[:5], axis=1)), 1, atol=1e-9)
    assert model.variance_share == pytest.approx((values[:5] ** 2).sum() / (values**2).sum())


@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(2, 40),
    kept=st.integers(1, 48),
    spread=st.sampled_from([1e-4, 1e-2, 0.3, 3.0]),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
)
def test_transform_never_lengthens_a_distance(seed, dim, kept, spread, dtype):
    """Projections lie within COORDINATE_ERROR of a map that shortens; codes add their own."""
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=dim) + spread * rng.normal(size=(30, dim))).astype(dtype)
    rows[1] = -rows[0]
    rows[2] = rows[0]
    exact = unit(rows.astype("f8"))
    projection, stored, model = projections(rows.astype("f8"), kept, dtype)
    true = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    seen = np.linalg.norm(projection[:, None] - projection[None], axis=2)
    assert (seen <= true + 2 * COORDINATE_ERROR).all()
    seen = np.linalg.norm(stored[:, None] - stored[None], axis=2) * model.step
    diagonal = np.sqrt(model.kept + 1) * model.step
    assert (seen <= true + 2 * COORDINATE_ERROR + 1.001 * diagonal).all()


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.95, 0.999, 1.0])
def test_filter_radius_loses_no_pair_at_the_threshold(threshold):
    rng = np.random.default_rng(1)
    base = unit(rng.normal(size=(300, 64)))
    other = unit(rng.normal(size=(300, 64)))
    other = unit(other - (other * base).sum(axis=1, keepdims=True) * base)
    turned = threshold * base + np.sqrt(1 - threshold**2) * other
    projection, stored, model = projections(np.concatenate([base, turned]), 16)
    assert (
        np.linalg.norm(projection[:300] - projection[300:], axis=1) <= filter_radius(threshold)
    ).all()
    distances = ((stored[:300] - stored[300:]) ** 2).sum(axis=1)
    assert (distances <= model.largest_code_distance(threshold)).all()


def test_largest_code_is_at_twice_the_widest_spread():
    rows = np.random.default_rng(4).normal(size=(500, 6))
    rows[:, 1] += 3
    projection, codes, model = projections(rows, 4)
    assert model.step == pytest.approx(2 / 127 * projection.std(axis=0).max(), rel=1e-5)
    assert codes.shape == (500, 8)
    assert not codes[:, 5:].any()
    inside = (abs(projection - model.centre) < 127 * model.step).all(axis=1)
    assert 0 < inside.sum() < 500
    distances = abs(codes[inside, :5] * model.step + model.centre - projection[inside])
    assert distances.max() <= 0.501 * model.step
    assert abs(codes).max() == 127


def test_codes_of_rows_outside_the_sample_and_of_axes_without_variance():
    flat = torch.zeros(50, 4)
    flat[:, 0] = 1
    model = fit_axes(flat, 3)
    others = prepare_block(np.eye(4, dtype=np.float32))
    assert model.to_codes(model.transform(others)).shape == (4, 4)
    assert model.step == 1
    assert model.largest_code_distance(0.95) == int((filter_radius(0.95) + 2) ** 2)


def test_transform_exactly_equals_the_matrix_product():
    rows = np.random.default_rng(2).normal(size=(50, 20)).astype("f4")
    model = fit_axes(torch.from_numpy(unit(rows)), 6)
    expected = (unit(rows.astype("f8")) - model.mean) @ model.axes
    np.testing.assert_allclose(model.transform_exactly(rows), expected, atol=1e-12)
    np.testing.assert_allclose(model.transform(prepare_block(rows))[:, :6], expected, atol=1e-5)


def test_save_and_load_pca_give_the_same_model(tmp_path):
    model = fit_axes(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), 3)
    save_pca(model, tmp_path / "model.safetensors")
    loaded = load_pca(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.axes, model.axes)
    np.testing.assert_array_equal(loaded.mean, model.mean)
    np.testing.assert_array_equal(loaded.centre, model.centre)
    assert loaded.step == model.step
    assert loaded.variance_share == model.variance_share


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04]\x94."])
def test_load_pca_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"model\.safetensors: is damaged"):
        load_pca(path)


def test_load_pca_missing_file_is_refused(tmp_path):
    with pytest.raises(DamagedError, match="none: is missing"):
        load_pca(tmp_path / "none")
