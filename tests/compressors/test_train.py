"""Training: the same twice, never worse than its start, and degenerate samples."""

import numpy as np
import pytest
import torch

from dask_dedup.compressors.losses import mse_loss
from dask_dedup.compressors.network_settings import NetworkSettings
from dask_dedup.compressors.pca_compressor import fit_uncentred_axes
from dask_dedup.compressors.train import train_network
from dask_dedup.errors import SettingsError

QUICK = {"epochs": 3, "batch": 32, "width": 24}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")


@pytest.fixture(scope="module")
def samples():
    """Images on a curved surface in 20 dimensions, and texts near them."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(300, 2))
    rows = np.sin(hidden @ rng.normal(size=(2, 20))) + 0.01 * rng.normal(size=(300, 20))
    return [unit(rows), unit(rows + 0.02 * rng.normal(size=(300, 20)))]


@pytest.fixture(scope="module")
def held_out():
    return np.arange(300) % 10 == 0


def train(samples, held_out, kind="snip", dim=5, seed=0, **settings):
    settings = NetworkSettings(**{**QUICK, **settings})
    return train_network(samples, held_out, kind, dim, settings, seed=seed)


def weights(trained):
    return [value.numpy().copy() for value in trained.network.state_dict().values()]


@pytest.mark.parametrize("start", ["pca", "random"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("mse", {}), ("snip", {}), ("snip", {"hard": True}), ("snip", {"clip_weight": 0.5})],
)
def test_train_network_twice_is_equal_bit_by_bit(samples, held_out, kind, settings, start):
    before = torch.get_rng_state()
    one, two = (train(samples, held_out, kind, start=start, **settings) for _ in range(2))
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.statistics == two.statistics
    assert torch.equal(torch.get_rng_state(), before)
    other = train(samples, held_out, kind, seed=1, start=start, **settings)
    assert not np.array_equal(weights(one)[0], weights(other)[0])


@pytest.mark.parametrize(("kind", "start"), [("mse", "random"), ("snip", "pca")])
def test_train_network_learns(samples, held_out, kind, start):
    statistics = train(
        samples, held_out, kind, epochs=40, patience=40, learning_rate=5e-3, start=start
    ).statistics
    losses = [entry["validation_loss"] for entry in statistics["curve"]]
    assert statistics["validation_loss"] == min(losses)
    assert losses.index(min(losses)) == statistics["best_epoch"]
    assert min(losses) < 0.9 * losses[0]
    rates = [entry["learning_rate"] for entry in statistics["curve"]]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_train_network_starts_as_the_pca(samples, held_out):
    """Before training MSE's validation loss is that of the training rows' axes, there and back."""
    statistics = train(samples, held_out, "mse", epochs=1).statistics
    axes, _ = fit_uncentred_axes(samples[0], 5, held_out)
    rows = np.concatenate([sample[held_out] for sample in samples])
    there_and_back = unit(rows @ axes) @ axes.T
    expected = mse_loss(torch.from_numpy(there_and_back), torch.from_numpy(rows))
    assert statistics["curve"][0]["validation_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_train_network_stops_early_and_keeps_the_best(samples, held_out):
    """A rate at which the first step destroys the start: the start itself is the best epoch."""
    statistics = train(
        samples, held_out, "mse", epochs=30, patience=2, learning_rate=0.9
    ).statistics
    assert statistics["best_epoch"] == 0
    assert statistics["stopped_early"]
    assert len(statistics["curve"]) == 3


def test_train_network_that_diverges_is_reported(samples, held_out):
    broken = [samples[0] * np.float32(1e30)]
    with pytest.raises(SettingsError, match=r"diverged in epoch 1: .* learning rate below 0.002"):
        train(broken, held_out, "mse")


@pytest.mark.parametrize("kind", ["mse", "snip"])
def test_train_network_takes_equal_rows(held_out, kind):
    same = np.tile(unit(np.ones((1, 20))), (300, 1))
    trained = train([same], held_out, kind)
    assert np.isfinite(trained.statistics["validation_loss"])
    assert all(np.isfinite(weight).all() for weight in weights(trained))


@pytest.mark.parametrize("kind", ["mse", "snip"])
@pytest.mark.parametrize("rows", [4, 7])
def test_train_network_takes_fewer_rows_than_dimensions_or_batch(samples, kind, rows):
    few = [sample[:rows] for sample in samples]
    trained = train(few, np.arange(rows) < 2, kind, dim=10)
    assert len(trained.statistics["curve"]) == 4
    assert all(np.isfinite(weight).all() for weight in weights(trained))


def test_train_network_reports_every_row_it_goes_over(samples, held_out):
    seen = []
    settings = NetworkSettings(**QUICK)
    train_network(samples, held_out, "snip", 5, settings, on_rows=seen.append)
    assert seen == [32] * (270 // 32) * 3
