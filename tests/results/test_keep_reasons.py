"""Why rows stay or go: the words name the rule that the run followed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks

ROWS = 12


@pytest.fixture(scope="module")
def keep(tmp_path_factory, write_dataset):
    """Two clusters: rows 0 to 5 are equal, 6 to 9 are links of a chain; 10 and 11 are alone."""
    folder = tmp_path_factory.mktemp("reasons")
    angles = np.array([0, 0, 0, 0, 0, 0, 1, 1.2, 1.4, 1.6])
    rows = np.zeros((ROWS, 8), "f4")
    rows[:10, 0], rows[:10, 1] = np.cos(angles), np.sin(angles)
    rows[10, 2] = 1
    metadata = pd.DataFrame(
        {
            "URL": [f"http://x/{i}" for i in range(ROWS)],
            "caption": [chr(97 + i) for i in range(ROWS)],
            "width": [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8],
        }
    )
    data = write_dataset(folder / "data", [rows[:4], rows[4:]], [metadata[:4], metadata[4:]])
    options = {"cells": 1, "audit_queries": 0, "execute": compute_tasks, "threshold": 0.97}
    result = dask_dedup.run(data, folder / "out", **options)

    def keep(**rules):
        dest = tmp_path_factory.mktemp("kept") / "out"
        return result.keep(dest, execute=compute_tasks, **rules)

    return keep


def reasons(result):
    found = [result.members(cluster=cluster) for cluster in (0, 6, 10, 11)]
    return dict(pd.concat(found)[["row_id", "reason"]].itertuples(index=False))


def test_reasons_without_rules_are_as_before(keep):
    found = reasons(keep())
    assert found[0] == "represents its cluster" and found[10] == "no other row is like it"
    assert found[5] == "1.0000 similar to row 0, which stays"
    assert found[11] == "no usable embedding"


def test_reasons_in_an_order(keep):
    result = keep(keep="width desc, URL")
    found = reasons(result)
    assert found[5] == "the first of its cluster by width desc, URL"
    assert found[0] == "1.0000 similar to row 5, which stays"
    assert found[7] == "the first of its cluster by width desc, URL"
    assert found[9] == "no row that stays is similar to it by 0.97 or more"
    assert result.members(row=9)["is_kept"].tolist().count(True) == 2


def test_reasons_of_protected_rows_and_of_decisions(keep, tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("url,decision\nhttp://x/0,keep\nhttp://x/10,drop\nhttp://x/9,not-duplicates\n")
    found = reasons(keep(keep="first", protect="width = 1", decisions=str(path)))
    assert found[1] == found[3] == "protected: width = 1"
    assert found[0] == "kept by decision"
    assert found[10] == "dropped by decision"
    assert found[9] == "no duplicate of its cluster, by decision"
    assert found[6] == "the smallest row_id of its cluster"


def test_reasons_of_rows_past_the_limit(keep):
    found = reasons(keep(keep="width desc", max_per_cluster=1))
    assert found[9].endswith("stays; more than 1 rows of its cluster would stay")
    assert found[0] == "1.0000 similar to row 5, which stays"


def test_reasons_of_a_medoid_say_which_it_may_be(keep):
    found = reasons(keep(keep="medoid"))
    assert found[0].startswith("the medoid of its cluster, or")


def test_show_knows_rows_without_a_witness(keep, tmp_path):
    from dask_dedup.results.show import Asked, show_rows

    path = tmp_path / "d.csv"
    path.write_text("row_id,decision\n10,drop\n" + "".join(f"{i},drop\n" for i in range(6)))
    result = keep(decisions=str(path))
    for row in (3, 10):
        report = show_rows(
            result.out, result.files, result.summary, Asked(row=row), reasons=result.keep_reasons
        )
        (group,) = report["clusters"]
        assert group["kept"] == 0
        for one in group["members"]:
            assert (one["witness_row_id"], one["path"]) == (None, None)
            assert one["reason"] == "dropped by decision"
