import numpy as np
import pandas as pd
from matplotlib.image import imread

from dask_dedup.report.pareto_plot import own_front, plot_pareto


def points(models, factories):
    rows = [
        {
            "model": model, "factory": factory, "bytes_per_vector": 4.0 + 3 * i,
            "recall@10": 0.2 * nprobe, "queries_per_second": 1000 / nprobe, "front": i == 0,
        }
        for model in models
        for i, factory in enumerate(factories)
        for nprobe in (1, 2, 3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_plot_pareto_draws_a_panel_for_each_model(tmp_path):
    for models in (["raw"], ["raw", "pca-8", "pca-16"]):
        plot_pareto(points(models, ["PQ4", "PQ8"]), 10, "three", tmp_path / "p.png")
        picture = imread(tmp_path / "p.png")
        assert picture.shape[0] > 500
        assert np.ptp(picture[..., :3]) > 0.5  # something was drawn
    assert picture.shape[0] > 1000  # two panels high


def test_own_front_has_the_points_that_no_other_beats():
    table = pd.DataFrame(
        {
            "queries_per_second": [10, 20, 20, 30, 40],
            "recall@5": [0.9, 0.9, 0.8, 0.5, 0.6],
        }
    )
    assert sorted(own_front(table, 5).index) == [1, 4]
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 20, (200, 2)), columns=table.columns)
    kept = {tuple(one) for one in own_front(table, 5).to_numpy().tolist()}
    every = {tuple(one) for one in table.to_numpy().tolist()}
    best = {a for a in every if not any(b != a and b[0] >= a[0] and b[1] >= a[1] for b in every)}
    assert kept == best


def test_plot_pareto_takes_one_point_and_many_factories(tmp_path):
    one = points(["raw"], ["Flat"]).head(1)
    plot_pareto(one, 10, "one", tmp_path / "one.png")
    plot_pareto(points(["raw"], [f"PQ{i}" for i in range(20)]), 10, "many", tmp_path / "many.png")
    assert (tmp_path / "one.png").stat().st_size > 1000
    assert (tmp_path / "many.png").stat().st_size > 1000
