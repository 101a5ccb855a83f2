"""What a finished run says of itself: how its data were read, and which thresholds it answers."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.results.finished_run import cluster_name, open_finished
from dask_dedup.results.pair_sample import sample_pairs
from dask_dedup.results.result_rows import read_result_rows
from dask_dedup.results.sweep import sweep
from dask_dedup.settings.run_settings import load_settings
from dask_dedup.storage.checksums import digest_of_file
from dask_dedup.storage.results_list import Results


def test_forest_range_of_a_forest_that_does_not_say_ends_below_dense_groups(small_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(small_run, out)
    known = open_finished(out).forest_range()
    known.check(0.998, "the forest")
    path = out / "forest" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    results = Results(out)
    results.add_folder("forest", results.entry("forest")[0], {path.name: digest_of_file(path)})
    unknown = open_finished(out).forest_range()
    unknown.check(0.998, "the forest")
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.95 to below 0\.999"):
        unknown.check(0.9995, "the forest")


def test_forest_or_summary_of_another_run_is_refused(small_run, finished, tmp_path):
    for name in ("summary.json", "forest/part-00000.parquet"):
        out = tmp_path / name.replace("/", "-")
        shutil.copytree(small_run, out)
        shutil.copy(finished.out / name, out / name)
        for read in (open_finished, sweep, sample_pairs):
            with pytest.raises(OutputError, match=f"{name}: .*is not whole"):
                read(out)


@pytest.mark.parametrize("name", ["summary.json"])
@pytest.mark.parametrize("fault", ["gone", "another number", "a list"])
def test_open_finished_of_a_result_with_a_damaged_file_is_refused(small_run, tmp_path, name, fault):
    out = tmp_path / "out"
    shutil.copytree(small_run, out)
    path = out / name
    text = path.read_text()
    if fault == "gone":
        path.unlink()
    else:
        path.write_text(text.replace("0.95", "0.94") if fault == "another number" else "[]")
        assert path.read_text() != text
    with pytest.raises(OutputError, match=f"{name}: .*is not whole"):
        open_finished(out)


def test_open_finished_knows_how_the_data_were_read_without_settings_of_other_stages(
    small_run, tmp_path
):
    known = open_finished(small_run).read
    assert known == load_settings(small_run / "settings.toml").read
    assert known.skip_bad_parts is False
    out = tmp_path / "out"
    shutil.copytree(small_run, out)
    (out / "settings.toml").write_text("[compress]\ndim = 64\n")  # of an earlier version
    assert open_finished(out).read == known


def test_open_finished_looks_at_the_folders_that_it_is_told(small_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(small_run, out)
    path = sorted((out / "clusters").iterdir())[1]
    path.unlink()
    open_finished(out, ["forest"])
    with pytest.raises(
        OutputError, match=rf"{path.name}.*the result of a finished run is not whole"
    ):
        open_finished(out, ["forest", "clusters"])


def test_names_are_in_the_order_of_their_numbers_past_99999(small_run, tmp_path):
    out = shutil.copytree(small_run, tmp_path / "out")
    names = [cluster_name(i) for i in (3, 99_999, 100_000, 100_001, 1_000_000)]
    digest = digest_of_file(out / "clusters" / cluster_name(0))
    Results(out).add_folder("clusters", "0", dict.fromkeys(sorted(names), digest))
    assert list(open_finished(out).names) == names


def test_rows_of_files_past_99999_are_read_by_their_numbers(tmp_path):
    (tmp_path / "clusters").mkdir()
    for i, name in enumerate((cluster_name(99_999), cluster_name(100_000))):
        table = pa.table({"row_id": [2 * i, 2 * i + 1], "url": [f"u{2 * i}", f"u{2 * i + 1}"]})
        pq.write_table(table, tmp_path / "clusters" / name, write_page_checksum=True)
    found = read_result_rows(tmp_path, np.array([3, 0]), ["row_id", "url"])
    assert found.to_pydict() == {"row_id": [3, 0], "url": ["u3", "u0"]}
