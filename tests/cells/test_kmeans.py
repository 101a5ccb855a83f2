import numpy as np
import pytest
import torch

from dask_dedup.cells.assign import assign_cells, set_margins
from dask_dedup.cells.assign_device import DeviceCells
from dask_dedup.cells.assign_exact import assign_exactly
from dask_dedup.cells.kmeans import (
    THIN_RADIUS,
    CellModel,
    load_cells,
    save_cells,
    thin,
    train_coarse,
    train_fine,
)
from dask_dedup.cells.sizes import MOST_CELLS_PER_ROW


def model_of(points, cells, seed=0, probes=4.0, cells_per_row=3.0):
    coarse, nearest = train_coarse(points, cells, seed)
    fine = [train_fine(points[nearest == i], 4, seed) for i in range(len(coarse))]
    start = np.concatenate([[0], np.cumsum([len(part) for part in fine])])
    weights = np.ones(points.shape[1], np.float32)
    model = CellModel(coarse, np.concatenate(fine), start, weights, np.zeros(2), np.zeros(2))
    return set_margins(model, points, probes, cells_per_row)


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32) / 4


@pytest.fixture(scope="module")
def model(points):
    return model_of(points, 64)


def test_assign_cells_equals_float64_where_it_is_sure(points, model):
    cells, unsure = assign_cells(torch.from_numpy(points), model)
    exact = assign_exactly(points.astype(np.float64), model)
    assert unsure.mean() < 0.05
    np.testing.assert_array_equal(cells[~unsure], exact[~unsure])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("probes", [1.0, 4.0, 32.0])
@pytest.mark.parametrize("score_bytes", [2 << 30, 5 * 64 * 100])
def test_device_cells_equal_assign_cells_where_both_are_sure(points, probes, score_bytes, device):
    """The way of a GPU, with the CPU as the device and, where there is one, with a GPU."""
    model = model_of(points, 64, probes=probes)
    moved = DeviceCells(model, torch.device(device), score_bytes)
    cells, unsure = moved.assign(torch.from_numpy(points))
    expected, expected_unsure = assign_cells(torch.from_numpy(points), model)
    sure = ~unsure & ~expected_unsure
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(cells[sure], expected[sure])


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_assign_cells_sure_rows_do_not_depend_on_the_block(points, model, block):
    whole, unsure = assign_cells(torch.from_numpy(points), model)
    pieces = [
        assign_cells(torch.from_numpy(points[i : i + block]), model) for i in range(0, 1000, block)
    ]
    cells = np.concatenate([piece[0] for piece in pieces])[:1000]
    sure = ~unsure[:1000] & ~np.concatenate([piece[1] for piece in pieces])[:1000]
    np.testing.assert_array_equal(cells[sure], whole[:1000][sure])


def test_assign_cells_first_is_the_nearest_when_all_are_probed(points):
    model = model_of(points, 64, probes=32.0)
    nearest = assign_exactly(points.astype(np.float64), model)[:, 0]
    distances = ((points[:, None].astype("f8") - model.fine[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest, distances.argmin(axis=1))


@pytest.mark.parametrize("cells_per_row", [1.0, 2.0, 5.0])
def test_set_margins_gives_the_wanted_cells_per_row_on_average(points, cells_per_row):
    cells, _ = assign_cells(
        torch.from_numpy(points), model_of(points, 64, cells_per_row=cells_per_row)
    )
    assert (cells >= 0).sum(axis=1).mean() == pytest.approx(cells_per_row, rel=0.02)


def test_assign_cells_are_ordered_distinct_and_within_the_margin(points, model):
    cells = assign_exactly(points.astype(np.float64), model)
    assert cells.shape == (3000, MOST_CELLS_PER_ROW)
    for point, row in zip(points[:200].astype("f8"), cells[:200], strict=True):
        chosen = row[row >= 0]
        assert (row[len(chosen) :] == -1).all()
        assert len(set(chosen)) == len(chosen)
        distances = ((point - model.fine[chosen]) ** 2).sum(axis=1)
        assert (np.diff(distances) >= -1e-6).all()
        scale = np.linalg.norm(model.fine[chosen[1:]] - model.fine[chosen[0]], axis=1)
        assert ((distances[1:] - distances[0]) / 2 / scale <= model.margins[1] + 1e-5).all()


def test_assign_exactly_equal_centroids_tie_to_the_lower_cell():
    centroid = np.ones((1, 2), np.float32)
    fine = np.concatenate([centroid, centroid, -centroid])
    model = CellModel(
        centroid * 0,
        fine,
        np.array([0, 3]),
        np.ones(2, np.float32),
        np.array([np.inf, 0.0]),
        np.array([np.inf, np.inf]),
    )
    point = np.array([[0.9, 1.1]])
    assert assign_exactly(point, model)[0, 0] == 0
    assert assign_cells(torch.from_numpy(point).float(), model)[1][0]  # it is marked as unsure


def test_thin_leaves_points_distant_from_each_other_and_covers_all():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(40, 6)) * 3
    points = (centres[rng.integers(0, 40, 2500)] + rng.normal(size=(2500, 6)) * 0.01).astype("f4")
    kept = thin(points, 6)
    np.testing.assert_array_equal(kept[0], points[0])
    distances = np.linalg.norm(points[:, None] - kept[None], axis=2)
    assert distances.min(axis=1).max() <= THIN_RADIUS
    assert len(kept) == 40


def test_thin_leaves_near_points_that_are_no_copies():
    rng = np.random.default_rng(3)
    near_copies = rng.normal(size=(600, 64)).astype("f4") * np.float32(0.39 / np.sqrt(2 * 64))
    copies = (np.ones(64) + rng.normal(size=(600, 64)) * 0.02).astype("f4")
    near = np.linalg.norm(near_copies[:, None] - near_copies[None], axis=2) <= THIN_RADIUS
    assert near.mean() > 0.5  # nearly all of it would go for its distances alone
    kept = thin(np.concatenate([near_copies, copies]), 5)
    assert kept.shape[1] == 5
    assert (np.abs(kept).max(axis=1) < 0.5).sum() > 400  # a handful by distances alone
    assert (np.abs(kept).max(axis=1) > 0.5).sum() < 5


def test_thin_compares_points_by_the_sketch_too():
    points = np.zeros((100, 6), np.float32)
    points[:, 3:] = np.random.default_rng(0).normal(size=(100, 3)) * 50
    assert len(thin(points, 3)) == 100
    assert len(thin(points[:, :3], 3)) == 1


def test_train_with_fewer_rows_than_cells_and_equal_rows():
    points = np.ones((3, 4), np.float32)
    model = model_of(points, 100, cells_per_row=2.0)
    cells = assign_exactly(points.astype("f8"), model)
    assert (cells[:, 0] == cells[0, 0]).all()
    assert (cells[:, 0] >= 0).all()


def test_train_fine_without_rows_gives_no_cell():
    assert train_fine(np.empty((0, 4), np.float32), 5, 0).shape == (0, 4)


def test_save_and_load_cells_give_the_same_model(tmp_path, model):
    save_cells(model, tmp_path / "cells.safetensors")
    loaded = load_cells(tmp_path / "cells.safetensors")
    for name in ("coarse", "fine", "fine_start", "weights", "margins", "reaches"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
