import logging

import numpy as np
import pytest

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks


@pytest.fixture
def data(tmp_path, write_dataset):
    rows = np.repeat(np.random.default_rng(0).normal(size=(20, 8)), 2, axis=0).astype("f4")
    return write_dataset(tmp_path / "data", [rows[:15], rows[15:]])


def run(data, out, **options):
    return dask_dedup.run(
        data, out, cells=1, audit_queries=0, **{"execute": compute_tasks, **options}
    )


def fail_at_the_page(tasks, on_result):
    if any(task.key.startswith("scan_files") for task in tasks):
        raise RuntimeError("the worker is gone")
    return compute_tasks(tasks, on_result)


def test_a_page_that_fails_is_said_and_the_run_is_finished(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = run(data, tmp_path / "out", execute=fail_at_the_page)
    assert "the page could not be made (RuntimeError: the worker is gone); `dask-dedup report" in (
        caplog.text
    )
    assert not (tmp_path / "out" / "report").exists()
    assert dask_dedup.open_result(tmp_path / "out").summary == result.summary
    assert result.report() == tmp_path / "out" / "report" / "index.html"
    dask_dedup.open_result(tmp_path / "out")


def test_the_page_is_the_last_stage_and_has_its_time(data, tmp_path):
    result = run(data, tmp_path / "out")
    assert [stage["name"] for stage in result["stages"]][-2:] == ["clusters", "report"]
    assert result["wall_seconds"] >= sum(stage["seconds"] for stage in result["stages"]) - 0.01


def test_the_same_page_for_any_parts_and_tasks(data, tmp_path, write_dataset):
    rows = np.repeat(np.random.default_rng(0).normal(size=(20, 8)), 2, axis=0).astype("f4")
    one = write_dataset(tmp_path / "one", [rows])
    pages = []
    for name, folder in (("a", data), ("b", one)):
        run(folder, tmp_path / name)
        html = (tmp_path / name / "report" / "index.html").read_text()
        start, stop = html.index('<section id="gallery">'), html.index('<section id="left-out">')
        # The URLs of the fixture name the part.
        pages.append([line for line in html[start:stop].splitlines() if "data-row" in line])
    assert pages[0] == pages[1]


def test_a_link_where_the_page_goes_is_refused(data, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run(data, tmp_path / "out", report=False)
    (tmp_path / "out" / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(dask_dedup.OutputError, match="is a link"):
        run(data, tmp_path / "out", threshold=0.9)
