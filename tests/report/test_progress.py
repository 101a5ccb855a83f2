"""Progress: bars on a terminal, lines elsewhere; both show rate and remaining time."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dask_dedup.report.progress import BarProgress, LineProgress, choose_progress, library_progress
from dask_dedup.runtime.executor import NoProgress


class Clock:
    """Time that passes only when a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def console(terminal: bool = False, width: int = 200) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, legacy_windows=False)


def lines(shown: Console) -> list[str]:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue().splitlines()


def test_choose_progress_bars_for_a_terminal_and_lines_elsewhere():
    assert isinstance(choose_progress(console(terminal=True)), BarProgress)
    assert isinstance(choose_progress(console()), LineProgress)


def test_library_progress_is_shown_where_somebody_watches_only():
    notebook = Console(file=io.StringIO(), force_jupyter=True)
    assert isinstance(library_progress(console(terminal=True)), BarProgress)
    assert isinstance(library_progress(notebook), LineProgress)
    assert isinstance(library_progress(console()), NoProgress)


def test_line_progress_prints_rate_and_remaining_time_every_five_seconds(clock):
    shown = console()
    progress = LineProgress(shown, clock)
    progress.start("layout", 1000)
    for _ in range(8):  # 16 s
        clock.now += 2
        progress.advance(100)
    clock.now += 4
    progress.advance(200)
    progress.finish()
    progress.close()
    assert lines(shown) == [
        "layout    300 of 1,000 rows, 50 rows/s, 14 s to go",
        "layout    600 of 1,000 rows, 50 rows/s, 8 s to go",
        "layout    done in 20.0 s, 50 rows/s",
    ]


def test_line_progress_each_stage_begins_at_zero(clock):
    shown = console()
    progress = LineProgress(shown, clock)
    for name, rows in (("fit", 10), ("join", 70)):
        progress.start(name, rows)
        clock.now += 7
        progress.advance(rows)
        progress.finish()
    assert lines(shown) == [
        "fit       done in 7.0 s, 1 rows/s",
        "join      done in 7.0 s, 10 rows/s",
    ]


def test_line_progress_a_stage_of_no_time_and_no_rows_is_no_error(clock):
    shown = console()
    progress = LineProgress(shown, clock)
    progress.start("join", 0)
    progress.advance(0)
    clock.now += 6
    progress.advance(0)
    progress.finish()
    assert lines(shown) == ["join      done in 6.0 s"]


def test_line_progress_rows_of_an_earlier_start_count_for_no_rate(clock):
    shown = console()
    progress = LineProgress(shown, clock)
    progress.start("layout", 1000)
    progress.skip(400)
    clock.now += 6
    progress.advance(300)  # 50 a second; 300 are left
    clock.now += 6
    progress.advance(300)
    progress.finish()
    assert lines(shown) == [
        "layout    700 of 1,000 rows, 50 rows/s, 6 s to go",
        "layout    done in 12.0 s, 50 rows/s",
    ]


def test_line_progress_a_stage_done_before_shows_no_rate(clock):
    shown = console()
    progress = LineProgress(shown, clock)
    progress.start("join", 1000)
    progress.skip(333)
    progress.skip(666)  # shares of the rows, rounded
    clock.now += 0.25
    progress.advance(0)
    progress.finish()
    progress.start("clusters", 10)
    clock.now += 2
    progress.advance(10)
    progress.finish()
    assert lines(shown) == [
        "join      done before, checked in 0.2 s",
        "clusters  done in 2.0 s, 5 rows/s",
    ]


def test_bar_progress_a_stage_done_before_shows_no_rate():
    shown = console(terminal=True)
    progress = BarProgress(shown)
    progress.start("join", 1000)
    progress.skip(999)
    progress.finish()
    progress.close()
    text = next(line for line in reversed(lines(shown)) if "join" in line)
    assert "100 %" in text
    assert "done before" in text
    assert "rows/s" not in text


def test_bar_progress_rows_of_an_earlier_start_count_for_no_rate():
    progress = BarProgress(console(terminal=True))
    progress.start("join", 1000)
    progress.skip(700)
    progress.advance(100)
    (task,) = progress._progress.tasks
    assert (task.completed, task.fields["skipped"]) == (800, 700)
    task.start_time = task.get_time() - 10  # 100 rows in 10 s
    rate = progress._progress.columns[3].render(task)
    progress.close()
    assert rate.plain.strip() == "10 rows/s"


def test_line_progress_is_one_line_on_a_narrow_screen(clock):
    shown = console(width=20)
    progress = LineProgress(shown, clock)
    progress.start("layout", 10**9)
    clock.now += 10
    progress.advance(10**8)
    assert lines(shown) == [
        "layout    100,000,000 of 1,000,000,000 rows, 10,000,000 rows/s, 90 s to go"
    ]


def test_bar_progress_shows_stage_share_rate_and_times():
    shown = console(terminal=True)
    progress = BarProgress(shown)
    progress.start("layout", 1000)
    progress.advance(370)
    progress._progress.refresh()
    progress.close()
    text = next(line for line in reversed(lines(shown)) if "layout" in line)
    assert "37 %" in text
    assert "rows/s" in text
    assert "0:00:00" in text


def test_bar_progress_finish_fills_the_bar_and_stages_stay_visible():
    shown = console(terminal=True)
    progress = BarProgress(shown)
    for name in ("fit", "layout"):
        progress.start(name, 1000)
        progress.advance(10)
        progress.finish()
    progress.close()
    assert [(task.description, task.completed) for task in progress._progress.tasks] == [
        ("fit", 1000),
        ("layout", 1000),
    ]
    assert any("100 %" in line for line in lines(shown))


def test_bar_progress_no_rows_is_no_error():
    progress = BarProgress(console(terminal=True))
    progress.advance(1)
    progress.start("join", 0)
    progress.finish()
    progress.close()
    assert progress._progress.finished
