"""What a notebook shows of a finished run: counts, and the histogram as a drawing in SVG.

Text alone, without scripts; all that comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from math import ceil, floor, log10
from typing import Any

import pandas as pd

__all__ = ["counts_table", "histogram_svg", "result_html"]

_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40  # margins


def result_html(out: str, summary: Mapping[str, Any], histogram: pd.DataFrame) -> str:
    """Return counts and histogram of a run as HTML.

    Parameters
    ----------
    out : str
        Folder or URL.
    summary : mapping
        The content of ``summary.json``.
    histogram : DataFrame
        From `dask_dedup.report.histogram.histogram_frame`.
    """
    drawing = histogram_svg(histogram)
    return (
        f"<div><p><b>{escape(out)}</b></p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:2em;align-items:flex-start">'
        f"{counts_table(_counts(summary))}{drawing}</div></div>"
    )


def _counts(summary: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    yield "rows", f"{summary['rows']:,}", ""
    share = f"{summary['duplicate_fraction']:.1%} of the valid rows"
    yield "duplicates", f"{summary['duplicates']:,}", share
    if "dropped" in summary:
        yield "dropped", f"{summary['dropped']:,}", "a row that stays is like each of them"
    yield "clusters of two or more", f"{summary['clusters_of_two_or_more']:,}", ""
    yield "largest cluster", f"{summary['largest_cluster']:,}", "rows"
    yield "invalid rows", f"{summary['invalid_rows']:,}", "no usable embedding; kept"
    yield "threshold", f"{summary['threshold']:g}", "cosine"
    audit = summary.get("audit")
    if audit and audit["queries_with_pairs"]:
        low, high = audit["all_united_low"], audit["all_united_high"]
        yield (
            "audit",
            f"{audit['all_united_share']:.2%}",
            f"of sampled rows have all their duplicates (95 %: {low:.2%} to {high:.2%})",
        )


def counts_table(lines: Iterable[tuple[str, str, str]]) -> str:
    """Return lines of name, value and note as a table."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:right">{escape(value)}</td>'
        f'<td style="text-align:left">{escape(note)}</td></tr>'
        for name, value, note in lines
    )
    return f"<table>{rows}</table>"


def histogram_svg(histogram: pd.DataFrame) -> str:
    """Draw clusters by size, both axes logarithmic: SVG, at most one point a pixel.

    Parameters
    ----------
    histogram : DataFrame
        ``cluster_size`` and ``clusters``. Empty: axes alone.
    """
    most_size = max(histogram["cluster_size"].max(), 2) if len(histogram) else 2
    most = max(histogram["clusters"].max(), 2) if len(histogram) else 2
    x_decades, y_decades = _decades(most_size), _decades(most)

    def x_of(size: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * log10(size) / x_decades

    def y_of(clusters: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * log10(clusters) / y_decades

    pairs = zip(histogram["cluster_size"], histogram["clusters"], strict=True)
    points = dict.fromkeys((round(x_of(size)), round(y_of(count))) for size, count in pairs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="11" fill="currentColor">'
        f"<title>Duplication histogram: clusters by number of rows</title>"
    ]
    for decade in range(floor(x_decades) + 1):
        x = x_of(10**decade)
        parts.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM))
        parts.append(_text(x, _HEIGHT - _BOTTOM + 15, "middle", f"{10**decade:,}"))
    for decade in range(floor(y_decades) + 1):
        y = y_of(10**decade)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 5, y + 4, "end", _short(decade)))
    parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="#1f8fb8"/>' for x, y in points]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        _text(middle, _HEIGHT - 8, "middle", "rows in the cluster (across), clusters (up)")
    )
    return "".join([*parts, "</svg>"])


def _decades(most: float) -> float:
    """Return the length of an axis in powers of ten: whole where it is long."""
    decades = log10(most)
    return float(ceil(decades)) if decades > 1 else max(decades, 0.5)


def _short(decade: int) -> str:
    units = "", "k", "M", "G"
    return f"{10 ** (decade % 3)}{units[min(decade // 3, 3)]}"


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" '
        f'stroke="currentColor" stroke-opacity="0.2"/>'
    )


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
