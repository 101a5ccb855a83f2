"""The forest of a finished run: the thresholds that it answers, also where it does not say so."""

from __future__ import annotations

import shutil

import pyarrow.parquet as pq
import pytest

from dask_dedup.errors import SettingsError
from dask_dedup.results.finished_run import open_finished


def test_forest_range_of_a_forest_that_does_not_say_ends_below_dense_groups(small_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(small_run, out)
    known = open_finished(out).forest_range()
    known.check(0.998, "the forest")
    path = out / "forest" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    unknown = open_finished(out).forest_range()
    unknown.check(0.998, "the forest")
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.95 to below 0\.999"):
        unknown.check(0.9995, "the forest")
