"""Progress on the screen: bars with rate and remaining time, or lines where no one watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from dask_dedup.report.count_text import rate_text
from dask_dedup.report.notebook_progress import NotebookProgress
from dask_dedup.runtime.executor import NoProgress, Progress

__all__ = ["BarProgress", "LineProgress", "choose_progress", "library_progress"]

_LINE_SECONDS = 5.0
_RATE_SECONDS = 0.5  # the rate of a shorter stage says nothing


class BarProgress:
    """One bar per stage, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Bars(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>4.0f} %"),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None
        self._has_advanced = False

    def start(self, stage: str, rows: int) -> None:
        """Begin a stage that will go over so many rows."""
        self._progress.start()
        self._task = self._progress.add_task(stage, total=max(rows, 1), skipped=0)
        self._has_advanced = False

    def advance(self, rows: int) -> None:
        """Note that so many rows more are done."""
        if self._task is not None:
            self._has_advanced |= rows > 0
            self._progress.advance(self._task, rows)

    def skip(self, rows: int) -> None:
        """Note that an earlier start did so many rows."""
        if self._task is not None:
            task = self._progress.tasks[self._task]
            task.completed += rows  # `Progress.update` would take them for work of this moment
            task.fields["skipped"] += rows

    def finish(self) -> None:
        """End the stage."""
        if self._task is not None:
            task = self._progress.tasks[self._task]
            if task.fields["skipped"] and not self._has_advanced:
                task.fields["skipped"] = task.total
            self._progress.update(self._task, completed=task.total)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


class LineProgress:
    """One line when a stage begins and ends, and every five seconds between."""

    def __init__(
        self,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._say = say or partial(console.print, highlight=False, soft_wrap=True)
        self._clock = clock
        self._stage, self._rows, self._done, self._skipped = "", 0, 0, 0
        self._has_advanced = False
        self._began = self._said = 0.0

    def start(self, stage: str, rows: int) -> None:
        """Begin a stage that will go over so many rows."""
        self._stage, self._rows, self._done, self._skipped = stage, rows, 0, 0
        self._has_advanced = False
        self._began = self._said = self._clock()

    def advance(self, rows: int) -> None:
        """Note that so many rows more are done."""
        self._done += rows
        self._has_advanced |= rows > 0
        now = self._clock()
        if now - self._said >= _LINE_SECONDS and self._skipped < self._done < self._rows:
            self._said = now
            rate = (self._done - self._skipped) / (now - self._began)
            self._print(
                f"{self._done:,} of {self._rows:,} rows, {rate_text(rate)}, "
                f"{(self._rows - self._done) / rate:.0f} s to go"
            )

    def skip(self, rows: int) -> None:
        """Note that an earlier start did so many rows."""
        self._done += rows
        self._skipped += rows

    def finish(self) -> None:
        """End the stage."""
        seconds = self._clock() - self._began
        if self._skipped and not self._has_advanced:
            self._print(f"done before, checked in {seconds:.1f} s")
            return
        rows = max(self._rows - self._skipped, 0)
        has_rate = rows > 0 and seconds >= _RATE_SECONDS
        self._print(f"done in {seconds:.1f} s" + f", {rate_text(rows / seconds)}" * has_rate)

    def close(self) -> None:
        """Nothing is left open."""

    def _print(self, text: str) -> None:
        self._say(f"{self._stage:<9} {text}")


def choose_progress(
    console: Console, say: Callable[[str], None] | None = None
) -> BarProgress | LineProgress:
    """Return bars for a terminal, lines for anything else; ``say`` prints these."""
    return BarProgress(console) if console.is_terminal else LineProgress(console, say=say)


def library_progress(console: Console | None = None) -> Progress:
    """Return a display for a caller of the library, who has asked for none.

    Bars where ``console``, standard error by default, is a terminal, and in a notebook, there
    without `rich`, whose bars need widgets that few notebooks have; else nothing.
    """
    console = console or Console(stderr=True)
    if console.is_jupyter:
        return NotebookProgress()
    return choose_progress(console) if console.is_terminal else NoProgress()


class _RateColumn(ProgressColumn):
    """Rows per second since the stage began, without those of an earlier start."""

    def render(self, task: Task) -> Text:
        skipped = task.fields["skipped"]
        rows = max(task.completed - skipped, 0)
        if skipped and not rows:
            return Text(f"{'done before' if task.finished else '':>19}")
        return Text(f"{rate_text(rows / task.elapsed if task.elapsed else 0.0):>19}")
