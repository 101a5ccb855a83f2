import pandas as pd
import pytest
from PIL import Image

from dask_dedup.report.sweep_plot import plot_sweep

COUNTS = pd.DataFrame(
    {
        "threshold": [0.9, 0.95, 1.0],
        "duplicates": [50, 20, 0],
        "clusters_of_two_or_more": [10, 8, 0],
        "largest_cluster": [30, 9, 1],
        "without_edge_to_representative": [20, 5, 0],
        "kept_fraction": [0.5, 0.8, 1.0],
    }
)
PRECISION = pd.DataFrame(
    {"threshold": [0.9, 0.95], "precision": [0.8, 0.9], "low": [0.7, 0.8], "high": [0.9, 1.0]}
)


@pytest.mark.parametrize("counts", [COUNTS, COUNTS[-1:]])
@pytest.mark.parametrize("precision", [None, PRECISION])
def test_plot_sweep_writes_a_picture(tmp_path, counts, precision):
    plot_sweep(counts, 0.95, tmp_path / "sweep.png", precision)
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size == (1200, 1100)
