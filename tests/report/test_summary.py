import pytest

from dask_dedup.report.histogram import histogram_frame
from dask_dedup.report.summary import (
    StageTime,
    count_clusters,
    sum_linked_through_others,
    versions,
)


def test_count_clusters_by_hand():
    """13 singles, 3 clusters of two, 1 of five: 24 valid rows; 7 invalid ones are in no count."""
    counts = count_clusters(histogram_frame({1: 13, 2: 3, 5: 1}), rows=31, invalid_rows=7)
    assert counts == {
        "rows": 31,
        "invalid_rows": 7,
        "clusters": 17,
        "duplicates": 7,
        "duplicate_fraction": 7 / 24,
        "clusters_of_two_or_more": 4,
        "largest_cluster": 5,
    }


def test_sum_linked_through_others_by_hand():
    records = [
        {"rows": 2, "below_0.8": 1, "lowest": 0.5},
        {"rows": 0, "below_0.8": 0, "lowest": None},
        {"rows": 3, "below_0.8": 3, "lowest": -0.125},
    ]
    assert sum_linked_through_others(records, 11) == {
        "rows": 5, "share": 5 / 11, "below_0.8": 4, "lowest": -0.125,
    }  # fmt: skip
    assert sum_linked_through_others(records[1:2], 0) == {
        "rows": 0, "share": 0.0, "below_0.8": 0, "lowest": None,
    }  # fmt: skip


def test_stage_time_is_json_with_a_rate():
    assert StageTime("join", 2.0, 100) == {"name": "join", "seconds": 2.0, "rows_per_second": 50.0}
    assert StageTime("join", 2.0, 0)["rows_per_second"] is None  # an earlier start did it all


def test_versions_name_what_the_result_depends_on():
    assert {"dask_dedup", "python", "dask", "faiss-cpu", "torch"} <= set(versions())
    with pytest.raises(Exception, match="no-such-package"):
        versions(["no-such-package"])
