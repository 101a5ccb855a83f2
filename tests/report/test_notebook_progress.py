"""Bars in a notebook: what is drawn, and a kernel that runs a whole run."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dask_dedup.report.notebook_progress import NotebookProgress


class Shown:
    """What a notebook has shown, content by content."""

    def __init__(self):
        self.contents = []
        self.first = 0

    def show(self, content):
        self.first += 1
        self.contents.append(content)
        return self

    def update(self, content, *, raw):
        assert raw
        self.contents.append(content)

    @property
    def lines(self):
        return self.contents[-1]["text/plain"].splitlines()


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def progress(shown, now):
    return NotebookProgress(shown.show, lambda: now[0])


def test_notebook_progress_shows_share_rate_and_times_in_one_place(shown, now, progress):
    progress.start("layout", 1000)
    now[0] += 8
    progress.advance(400)
    assert shown.lines == ["layout     40%  50 rows/s  8.0 s, 12 s to go"]
    now[0] += 2
    progress.finish()
    now[0] += 5
    progress.start("join", 30)
    now[0] += 3
    progress.advance(15)
    progress.close()
    assert shown.lines == [
        "layout    100%  100 rows/s  10.0 s",
        "join       50%  5 rows/s  3.0 s, 3 s to go",
    ]
    assert shown.first == 1
    assert re.findall(r"width:([\d.]+%)", shown.contents[-1]["text/html"]) == ["100.0%", "50.0%"]


def test_notebook_progress_draws_at_most_twice_a_second(shown, now, progress):
    progress.start("layout", 1000)
    for _ in range(128):
        now[0] += 1 / 64
        progress.advance(1)
    assert len(shown.contents) == 5  # at the start, and after each half second


def test_notebook_progress_no_rows_no_time_and_no_stage_are_no_error(shown, progress):
    progress.advance(1)
    progress.finish()
    assert shown.contents == []
    progress.start("<b>", 0)
    assert shown.lines == ["<b>         0%    0.0 s"]
    progress.finish()
    assert shown.lines == ["<b>       100%    0.0 s"]
    assert "&lt;b&gt;" in shown.contents[-1]["text/html"]


CELLS = """
import dask_dedup
from dask_dedup.runtime.executor import compute_tasks
result = dask_dedup.run({data!r}, {out!r}, audit_queries=0, cells=4, execute=compute_tasks)
result
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the notebook's own packages
def test_run_in_a_notebook_shows_bars_and_then_the_result(tmp_path, write_dataset):
    import nbclient
    import nbformat

    rows = np.random.default_rng(0).normal(size=(300, 8)).astype("f4")
    rows[200:] = rows[:100]
    data = write_dataset(tmp_path / "data", np.split(rows, [120]))
    source = CELLS.format(data=str(data), out=str(tmp_path / "<out>"))
    cells = [
        nbformat.v4.new_code_cell(source),
        nbformat.v4.new_code_cell(f"dask_dedup.read_dataset({str(data)!r})"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert [one.output_type for one in outputs] == ["display_data", "execute_result"], outputs
    bars, shown = (one.data for one in outputs)
    stages = [line.split() for line in bars["text/plain"].splitlines()]
    assert {"layout", "join", "forest", "clusters"} <= {stage[0] for stage in stages}
    assert {stage[1] for stage in stages} == {"100%"}
    assert bars["text/html"].count("width:100.0%") == len(stages)
    assert shown["text/plain"] == f"<Result {tmp_path}/<out>: 300 rows, 100 duplicates at 0.95>"
    assert "/&lt;out&gt;</b>" in shown["text/html"]
    assert "<svg" in shown["text/html"]
    (of_data,) = notebook.cells[1].outputs
    assert (
        of_data.data["text/plain"] == f"<Dataset {data}: 300 rows in 2 parts, dimension 8, image>"
    )
    assert "url, caption" in of_data.data["text/html"]


def test_notebook_progress_rows_of_an_earlier_start_count_for_no_rate():
    now, shown = [0.0], Shown()
    progress = NotebookProgress(shown.show, clock=lambda: now[0])
    progress.start("join", 1000)
    progress.skip(700)
    now[0] = 10.0
    progress.advance(100)  # in ten seconds; 200 are left
    assert "10 rows/s  10.0 s, 20 s to go" in shown.contents[-1]["text/plain"]
