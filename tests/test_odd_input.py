"""A data set with everything that is odd, yet not wrong: it is taken, and no row is lost."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_dedup
from dask_dedup import load_settings
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.files import read_json

run_here = partial(dask_dedup.run, execute=compute_tasks)


def array(rows: int = 7, dim: int = 5, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, dim)).astype(dtype)


ODD_CAPTIONS = ["line\nbreak\r\n", "🦆 über ﷽ \u202e", "", "\x00", '"a", b;\t', None, "x" * 10**5]


@pytest.fixture(scope="module")
def odd(tmp_path_factory, write_dataset) -> SimpleNamespace:
    """Run over one data set that has everything that is odd; planted: 3, 17 and 20 are copies."""
    folder = tmp_path_factory.mktemp("odd")
    arrays = [
        array(0),
        array(7, dtype=np.float16),
        np.asarray(array(5), ">f8", "F"),
        array(0, dtype=np.float64),
        array(11, dtype=">f4"),
        array(0),
    ]
    copied = arrays[1][3]
    arrays[4][[5, 8]] = copied
    arrays[2][1] = math.nan
    arrays[2][2, 0] = -math.inf
    arrays[4][0] = 0
    arrays[4][10, 3] = math.nan
    frames = [
        pd.DataFrame({"url": [], "caption": []}),
        pd.DataFrame({"URL": [f"u{i}" for i in range(7)], "TEXT": ODD_CAPTIONS}),
        pd.DataFrame({"URL": [None] * 5, "extra": range(5), "cluster_id": ["own"] * 5}),
        pd.DataFrame(),
        pd.DataFrame({"TEXT": [None] * 11, "URL": ["same"] * 11, "is_valid": [0.5] * 11}),
        None,
    ]
    data = write_dataset(folder / "data", arrays, frames)
    settings = load_settings(
        None, {"audit.queries": 5, "read.url_column": "URL", "read.caption_column": "TEXT"}
    )
    with dask.config.set(scheduler="synchronous"):
        summary = run_here(data, folder / "out", settings)
    return SimpleNamespace(
        out=folder / "out",
        summary=summary,
        clusters=pq.read_table(folder / "out" / "clusters"),
        invalid=pq.read_table(folder / "out" / "invalid"),
    )


INVALID = {8: "nan", 9: "infinite", 12: "zero", 22: "nan"}


def test_odd_every_row_comes_out_once_in_order(odd):
    assert odd.clusters["row_id"].to_pylist() == list(range(23))
    assert odd.summary["rows"] == 23
    assert len(list((odd.out / "clusters").iterdir())) == 6  # one file per part, empty ones too


def test_odd_unusable_rows_are_quarantined_with_their_reason(odd):
    reasons = dict(
        zip(
            odd.invalid["row_id"].to_pylist(),
            odd.invalid["invalid_reason"].to_pylist(),
            strict=True,
        )
    )
    assert reasons == INVALID
    assert odd.summary["invalid_rows"] == len(INVALID)
    assert read_json(odd.out / "summary.json")["invalid_rows"] == len(INVALID)
    assert odd.invalid["url"].to_pylist() == [None, None, "same", "same"]


def test_odd_unusable_rows_are_clusters_of_their_own(odd):
    frame = odd.clusters.to_pandas().set_index("row_id")
    assert frame.index[~frame["is_valid"]].tolist() == list(INVALID)
    unusable = frame.loc[list(INVALID)]
    assert (unusable["cluster_id"] == unusable.index).all()
    assert (unusable["cluster_size"] == 1).all()
    assert unusable["is_representative"].all()


def test_odd_copies_are_found_across_parts_of_other_layouts(odd):
    frame = odd.clusters.to_pandas().set_index("row_id")
    assert frame["cluster_id"][[3, 17, 20]].tolist() == [3, 3, 3]
    assert frame["cluster_size"][[3, 17, 20]].tolist() == [3, 3, 3]
    assert frame.index[frame["is_representative"] & (frame["cluster_size"] > 1)].tolist() == [3]
    assert odd.summary["duplicates"] == 2


def test_odd_captions_and_urls_come_out_as_they_went_in(odd):
    assert odd.clusters["caption"].to_pylist() == [*ODD_CAPTIONS, *[None] * 16]
    assert odd.clusters["url"].to_pylist() == [
        *(f"u{i}" for i in range(7)),
        *[None] * 5,
        *["same"] * 11,
    ]


def test_odd_columns_of_single_parts_are_null_elsewhere_and_renamed_where_they_collide(odd):
    assert odd.clusters["extra"].to_pylist() == [*[None] * 7, *range(5), *[None] * 11]
    assert odd.clusters["source_cluster_id"].to_pylist() == [
        *[None] * 7,
        *["own"] * 5,
        *[None] * 11,
    ]
    assert odd.clusters["source_is_valid"].to_pylist() == [*[None] * 12, *[0.5] * 11]
    assert odd.clusters["extra"].type == pa.int64()


def test_data_set_without_url_and_caption_is_keyed_by_row_id(tmp_path, write_dataset, caplog):
    frames = [pd.DataFrame({"key": ["a", "b", "c"]})]
    data = write_dataset(tmp_path / "data", [array(3)], frames)
    with dask.config.set(scheduler="synchronous"):
        run_here(data, tmp_path / "out", load_settings(None, {"audit.queries": 0}))
    clusters = pq.read_table(tmp_path / "out" / "clusters")
    assert clusters["row_id"].to_pylist() == [0, 1, 2]
    assert clusters["url"].to_pylist() == clusters["caption"].to_pylist() == [None] * 3
    assert clusters["key"].to_pylist() == ["a", "b", "c"]
    assert [r.getMessage() for r in caplog.records if "url_column" in r.getMessage()] == [
        "no column url or URL in the metadata (url_column gives another name); "
        "results are keyed by row_id"
    ]


def test_data_set_of_one_row_is_one_cluster(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [array(1)])
    with dask.config.set(scheduler="synchronous"):
        summary = run_here(data, tmp_path / "out")
    assert (summary["rows"], summary["clusters"], summary["duplicates"]) == (1, 1, 0)
