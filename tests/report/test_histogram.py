import pandas as pd
import pytest
from PIL import Image

from dask_dedup.report.histogram import (
    bin_sizes,
    histogram_frame,
    plot_histogram,
    read_histogram,
    write_histogram_csv,
)

SIZES = {1: 101, 2: 53, 3: 7, 4: 5, 9: 3, 1000: 1}


def test_histogram_frame_is_ordered_and_counts_rows():
    frame = histogram_frame({3: 7, 1: 101})
    assert frame.to_numpy().tolist() == [[1, 101, 101], [3, 7, 21]]


def test_histogram_csv_round_trip(tmp_path):
    frame = histogram_frame(SIZES)
    write_histogram_csv(frame, tmp_path / "histogram.csv")
    pd.testing.assert_frame_equal(read_histogram(tmp_path / "histogram.csv"), frame)


def test_bin_sizes_sums_powers_of_two():
    assert bin_sizes(histogram_frame(SIZES)) == [
        ("1", 101, 101),
        ("2", 53, 106),
        ("3–4", 12, 41),
        ("9–16", 3, 27),
        ("513–1,024", 1, 1000),
    ]
    assert bin_sizes(histogram_frame({})) == []


@pytest.mark.parametrize("sizes", [SIZES, {}, {1: 7}, {1: 10**9, 3 * 10**5: 1}])
def test_plot_histogram_writes_a_picture(sizes, tmp_path):
    largest = [{"cluster_id": 10**9, "rows": 1000}, {"cluster_id": 4, "rows": 9}]
    plot_histogram(histogram_frame(sizes), 0.95, tmp_path / "histogram.png", largest)
    with Image.open(tmp_path / "histogram.png") as picture:
        assert picture.size == (1400, 1000)
        assert len(picture.convert("L").getcolors()) > 20  # not blank
