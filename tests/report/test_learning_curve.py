import pandas as pd
import pytest
from matplotlib.image import imread

from dask_dedup.report.learning_curve import plot_curve, write_curve_csv


@pytest.fixture
def curve():
    entries = [(0, 0.1, None, 0.9), (1, 0.05, 0.7, 0.6), (2, 0.0, 0.5, 0.65)]
    keys = ("epoch", "learning_rate", "train_loss", "validation_loss")
    return [dict(zip(keys, entry, strict=True)) for entry in entries]


def test_write_curve_csv_has_one_line_an_epoch(tmp_path, curve):
    write_curve_csv(curve, tmp_path / "curve.csv")
    frame = pd.read_csv(tmp_path / "curve.csv")
    assert list(frame.columns) == ["epoch", "learning_rate", "train_loss", "validation_loss"]
    assert frame["train_loss"].isna().tolist() == [True, False, False]
    assert frame["validation_loss"].tolist() == [0.9, 0.6, 0.65]


def test_plot_curve_draws_a_picture_that_is_not_blank(tmp_path, curve):
    plot_curve(curve, 1, "snip", tmp_path / "curve.png")
    image = imread(tmp_path / "curve.png")
    assert image.shape[:2] == (800, 1200)
    assert image[..., :3].std() > 0.01
