"""Progress in a notebook: a bar a stage, drawn anew in place; without widgets and scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Protocol

__all__ = ["Display", "NotebookProgress", "display_in_notebook"]

_DRAW_SECONDS = 0.5


class Display(Protocol):
    """What has been shown once, and is replaced: an ``IPython.display.DisplayHandle``."""

    def update(self, content: Mapping[str, str], *, raw: bool) -> None:
        """Show other content in its place, by MIME type."""


def display_in_notebook(content: Mapping[str, str]) -> Display:
    """Show content in the output of the cell that runs, by MIME type."""
    from IPython.display import display

    return display(dict(content), raw=True, display_id=True)


@dataclass
class _Stage:
    """One stage: times of the clock, in seconds; ``ended`` is None while it goes on."""

    name: str
    rows: int
    began: float
    done: int = 0
    skipped: int = 0
    ended: float | None = None


class NotebookProgress:
    """One bar per stage: share, rate, time and remaining time; text where HTML is not shown.

    Parameters
    ----------
    show : callable
        Shows content for the first time, and returns what replaces it.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        show: Callable[[Mapping[str, str]], Display] = display_in_notebook,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show, self._clock = show, clock
        self._stages: list[_Stage] = []
        self._display: Display | None = None
        self._drawn = 0.0

    def start(self, stage: str, rows: int) -> None:
        """Begin a stage that will go over so many rows."""
        self._stages.append(_Stage(stage, rows, self._clock()))
        self._draw()

    def advance(self, rows: int) -> None:
        """Note that so many rows more are done."""
        if self._stages:
            self._stages[-1].done += rows
            if self._clock() - self._drawn >= _DRAW_SECONDS:
                self._draw()

    def skip(self, rows: int) -> None:
        """Note rows that an earlier start did: they count for no rate."""
        if self._stages:
            self._stages[-1].done += rows
            self._stages[-1].skipped += rows

    def finish(self) -> None:
        """End the stage."""
        if self._stages:
            stage = self._stages[-1]
            stage.done, stage.ended = stage.rows, self._clock()
            self._draw()

    def close(self) -> None:
        """Leave the last state."""

    def _draw(self) -> None:
        self._drawn = self._clock()
        lines = [self._line(stage) for stage in self._stages]
        rows = "".join(
            f'<tr><td style="text-align:left">{escape(name)}</td>'
            f'<td><div style="width:240px;background:rgba(128,128,128,0.3)">'
            f'<div style="width:{share:.1%};height:0.7em;background:#1f8fb8"></div></div></td>'
            f"<td>{share:.0%}</td><td>{rate}</td><td>{times}</td></tr>"
            for name, share, rate, times in lines
        )
        content = {
            "text/html": f"<table>{rows}</table>",
            "text/plain": "\n".join(
                f"{name:<9} {share:>4.0%}  {rate}  {times}" for name, share, rate, times in lines
            ),
        }
        if self._display is None:
            self._display = self._show(content)
        else:
            self._display.update(content, raw=True)

    def _line(self, stage: _Stage) -> tuple[str, float, str, str]:
        """Return name, share done, rate and times."""
        seconds = (self._drawn if stage.ended is None else stage.ended) - stage.began
        share = stage.done / stage.rows if stage.rows else float(stage.ended is not None)
        rate = max(stage.done - stage.skipped, 0) / seconds if seconds > 0 else 0.0
        times = f"{seconds:.1f} s"
        if stage.ended is None and rate:
            times += f", {(stage.rows - stage.done) / rate:.0f} s to go"
        return stage.name, min(share, 1.0), f"{rate:,.0f} rows/s" if rate else "", times
