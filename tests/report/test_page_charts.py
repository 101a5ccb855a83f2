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
