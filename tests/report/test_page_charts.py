import re
from math import log10

import pandas as pd
import pytest

from dask_dedup.report.page_charts import histogram_chart, sweep_chart

SWEEP = pd.DataFrame(
    {
        "threshold": [0.9, 0.95, 0.99],
        "duplicates": [50, 20, 0],
        "clusters": [50, 80, 100],
        "clusters_of_two_or_more": [7, 5, 0],
        "largest_cluster": [30, 11, 1],
        "without_edge_to_representative": [10, 2, 0],
        "kept_fraction": [0.5, 0.8, 1.0],
    }
)


def test_sweep_line_goes_through_the_shares():
    svg = sweep_chart(SWEEP, 0.95)
    line = re.findall(r'<path class="line" d="M([^"]*)"', svg)[0]
    places = [tuple(map(float, one.split())) for one in line.split("L")]
    left, right = places[0][0], places[-1][0]
    assert places[1][0] == pytest.approx(left + (right - left) * 5 / 9, abs=0.1)
    heights = [y for _, y in places]
    assert heights[2] - heights[1] == pytest.approx(0.4 * (heights[2] - heights[0]), abs=0.2)
    own = float(re.search(r'class="own" d="M([\d.]+)', svg)[1])
    assert own == pytest.approx(places[1][0], abs=0.1)


@pytest.mark.parametrize("duplicates", [[0, 0, 0], [1, 0, 0]])
def test_sweep_of_few_duplicates_is_drawn(duplicates):
    few = SWEEP.assign(duplicates=duplicates, kept_fraction=[1 - d / 100 for d in duplicates])
    assert "nan" not in sweep_chart(few, 0.5)
    assert 'class="own"' not in sweep_chart(few, 0.5)  # outside


def test_histogram_has_a_point_for_each_size_at_its_place():
    histogram = pd.DataFrame({"cluster_size": [1, 2, 10, 100], "clusters": [1000, 100, 10, 1]})
    svg = histogram_chart(histogram)
    found = re.findall(r'<circle class="point" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert len(found) == 4
    xs, ys = zip(*[(float(x), float(y)) for x, y in found], strict=True)
    width, height = xs[3] - xs[0], ys[3] - ys[0]
    for i, size in enumerate(histogram["cluster_size"]):
        assert xs[i] - xs[0] == pytest.approx(width * log10(size) / 2, abs=0.2)
    for i, count in enumerate(histogram["clusters"]):
        assert ys[3] - ys[i] == pytest.approx(height * log10(count) / 3, abs=0.2)


def test_histogram_without_clusters_is_drawn():
    svg = histogram_chart(pd.DataFrame({"cluster_size": [], "clusters": []}))
    assert "circle" not in svg
    assert "nan" not in svg


PRECISION = pd.DataFrame(
    {
        "threshold": [0.9, 0.93, 0.96, 1.0],
        "precision": [0.72, 0.84, None, 1.0],
        "low": [0.61, 0.75, None, 0.8],
        "high": [0.81, 0.9, None, 1.0],
        "labelled": [40, 30, 20, 10],
    }
)


def test_precision_is_drawn_below_at_its_thresholds():
    svg = sweep_chart(SWEEP, 0.95, PRECISION)
    points = re.findall(r'<circle class="point sure" cx="([^"]*)" cy="([^"]*)"', svg)
    (one, other) = [tuple(map(float, point)) for point in points]  # the third is not known
    share = re.findall(r'<path class="line" d="M([^"]*)"', svg)[0].split("L")
    left, right = (float(share[i].split()[0]) for i in (0, -1))
    assert one[0] == pytest.approx(left, abs=0.1)
    assert other[0] == pytest.approx(left + (right - left) / 3, abs=0.1)
    bars = re.findall(r'<path class="line sure thin" d="M[\d.]+ ([\d.]+)V([\d.]+)"', svg)
    (low, high), _ = [tuple(map(float, bar)) for bar in bars]
    unit = (low - high) / (0.81 - 0.61)  # of the height, for a precision of 1
    assert low - one[1] == pytest.approx((0.72 - 0.61) * unit, abs=0.2)
    assert one[1] - other[1] == pytest.approx((0.84 - 0.72) * unit, abs=0.2)
    without = sweep_chart(SWEEP, 0.95)
    lowest = max(float(y) for y in re.findall(r"V([\d.]+)", without))
    assert low > high > lowest
    assert "sure" not in without


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_precision_of_few_thresholds_is_drawn(rows):
    assert "nan" not in sweep_chart(SWEEP, 0.95, PRECISION[3 - rows : 3])
