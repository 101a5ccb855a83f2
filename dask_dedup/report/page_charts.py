"""The drawings of the report page, as SVG: numbers alone, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, log10

import pandas as pd

__all__ = ["histogram_chart", "sweep_chart"]

# Width and margins of the sweep: the slider below has the same shares, in the style sheet.
_WIDTH, _LEFT, _RIGHT = 860, 64, 20
_TOP, _HIGH, _GAP, _LOW, _BOTTOM = 14, 220, 34, 110, 34
_SURE = 110  # height of the precision
_TICKS = 6
_POINT = 3.2


class _Scale:
    """A linear or logarithmic scale from values to places."""

    def __init__(
        self, low: float, high: float, start: float, stop: float, is_log: bool = False
    ) -> None:
        self._of = log10 if is_log else float
        self.low, self.high = self._of(low), self._of(high)
        self.start, self.stop = start, stop

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        span = (self.high - self.low) or 1.0
        share = (self._of(value) - self.low) / span
        return self.start + (self.stop - self.start) * share


def sweep_chart(
    sweep: pd.DataFrame, own_threshold: float, precision: pd.DataFrame | None = None
) -> str:
    """Draw the share of rows that are duplicates over the threshold, and sizes below it.

    Parameters
    ----------
    sweep : DataFrame
        From `dask_dedup.results.sweep.sweep`, thresholds rising; at least two.
    own_threshold : float
        Of the run: a dashed line.
    precision : DataFrame, optional
        From `dask_dedup.results.precision.precision`, thresholds rising: a third drawing below,
        with its interval, as far as the sweep goes.
    """
    thresholds = sweep["threshold"].tolist()
    end = _TOP + _HIGH + _GAP + _LOW + (0 if precision is None else _GAP + _SURE)
    height = end + _BOTTOM
    share = 1 - sweep["kept_fraction"]
    one_row = (share / sweep["duplicates"]).where(sweep["duplicates"] > 0, 0.0)
    bound = sweep["without_edge_to_representative"] * one_row
    top = _rounded_up(max(float(share.max()), 0.001))
    x = _Scale(thresholds[0], thresholds[-1], _LEFT, _WIDTH - _RIGHT)
    y = _Scale(0, top, _TOP + _HIGH, _TOP)
    low_start = _TOP + _HIGH + _GAP + _LOW
    counts = sweep[["clusters_of_two_or_more", "largest_cluster"]].clip(lower=1)
    most = max(float(counts.max(axis=None)), 10.0)
    z = _Scale(1, 10 ** ceil(log10(most)), low_start, low_start - _LOW, is_log=True)
    parts = [_open("sweep-chart", _WIDTH, height, "Duplicates by threshold")]
    parts += [
        _across(y(tick)) + _label(_LEFT - 8, y(tick) + 4, "end", _percent(tick))
        for tick in _ticks(0, top)
    ]
    parts += [
        _across(z(10.0**decade)) + _label(_LEFT - 8, z(10.0**decade) + 4, "end", _short(decade))
        for decade in range(ceil(log10(most)) + 1)
    ]
    parts += [
        _label(x(tick), height - 12, "middle", f"{tick:g}")
        for tick in _ticks(thresholds[0], thresholds[-1])
    ]
    places = [x(one) for one in thresholds]
    parts.append(_area("area", places, [y(one) for one in share], y(0)))
    parts.append(_area("area bound", places, [y(one) for one in bound], y(0)))
    parts.append(_line("line", places, [y(one) for one in share]))
    for name, column in zip(("line", "line warm"), counts, strict=True):
        parts.append(_line(name, places, [z(float(one)) for one in counts[column]]))
    if precision is not None:
        parts += _precision(precision[precision["threshold"] <= thresholds[-1]], x, end)
    if thresholds[0] <= own_threshold <= thresholds[-1]:
        parts.append(f'<path class="own" d="M{x(own_threshold):.1f} {_TOP}V{end}"/>')
    parts.append(f'<path id="sweep-marker" class="marker" d="M0 {_TOP}V{end}"/>')
    parts.append('<circle id="sweep-dot" class="dot" r="5" cx="-20" cy="-20"/>')
    return "".join([*parts, "</svg>"])


def histogram_chart(histogram: pd.DataFrame) -> str:
    """Draw the number of clusters by their size, both axes logarithmic.

    Parameters
    ----------
    histogram : DataFrame
        ``cluster_size`` and ``clusters``. Empty: axes alone.
    """
    width, height, left, right, top, bottom = 560, 360, 64, 20, 14, 46
    size = max(float(histogram["cluster_size"].max()), 2.0) if len(histogram) else 10.0
    count = max(float(histogram["clusters"].max()), 2.0) if len(histogram) else 10.0
    decades = ceil(log10(size)), ceil(log10(count))
    x = _Scale(1, 10.0 ** decades[0], left, width - right, is_log=True)
    y = _Scale(1, 10.0 ** decades[1], height - bottom, top, is_log=True)
    parts = [_open("histogram-chart", width, height, "Clusters by their number of rows")]
    for decade in range(decades[0] + 1):
        place = x(10.0**decade)
        parts.append(f'<path class="grid" d="M{place:.1f} {top}V{height - bottom}"/>')
        parts.append(_label(place, height - bottom + 18, "middle", _short(decade)))
    for decade in range(decades[1] + 1):
        place = y(10.0**decade)
        parts.append(f'<path class="grid" d="M{left} {place:.1f}H{width - right}"/>')
        parts.append(_label(left - 8, place + 4, "end", _short(decade)))
    pairs = zip(histogram["cluster_size"], histogram["clusters"], strict=True)
    points = dict.fromkeys((round(x(one), 1), round(y(other), 1)) for one, other in pairs)
    parts += [f'<circle class="point" cx="{a}" cy="{b}" r="{_POINT}"/>' for a, b in points]
    parts.append(_label((left + width - right) / 2, height - 8, "middle", "rows in the cluster"))
    parts.append(
        f'<text class="label" text-anchor="middle" transform="translate(14 '
        f'{(top + height - bottom) / 2:.0f}) rotate(-90)">clusters</text>'
    )
    return "".join([*parts, "</svg>"])


def _precision(precision: pd.DataFrame, x: _Scale, start: float) -> list[str]:
    """Draw the precision, a point for each threshold at which it is known, and its interval."""
    known = precision.dropna(subset="precision")
    least = float(known["low"].min()) if len(known) else 0.0
    bottom = min(floor(least * 10 + 1e-9) / 10, 0.9)
    y = _Scale(bottom, 1, start, start - _SURE)
    parts = [
        _across(y(tick)) + _label(_LEFT - 8, y(tick) + 4, "end", _percent(tick))
        for tick in _ticks(bottom, 1)
    ]
    xs = [x(one) for one in known["threshold"]]
    low, high, middle = ([y(one) for one in known[name]] for name in ("low", "high", "precision"))
    if len(known) > 1:
        band = [*zip(xs, high, strict=True), *zip(xs[::-1], low[::-1], strict=True)]
        parts.append(f'<path class="area sure" d="M{_steps(*zip(*band, strict=True))}Z"/>')
        parts.append(_line("line sure", xs, middle))
    for place, one, other, centre in zip(xs, low, high, middle, strict=True):
        parts.append(f'<path class="line sure thin" d="M{place:.1f} {one:.1f}V{other:.1f}"/>')
        parts.append(
            f'<circle class="point sure" cx="{place:.1f}" cy="{centre:.1f}" r="{_POINT}"/>'
        )
    return parts


def _open(name: str, width: int, height: int, title: str) -> str:
    return (
        f'<svg id="{name}" class="chart" role="img" viewBox="0 0 {width} {height}" '
        f'aria-label="{title}">'
    )


def _across(place: float) -> str:
    return f'<path class="grid" d="M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}"/>'


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _steps(xs: Sequence[float], ys: Iterable[float]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))


def _line(name: str, xs: Sequence[float], ys: Iterable[float]) -> str:
    return f'<path class="{name}" d="M{_steps(xs, ys)}"/>'


def _area(name: str, xs: Sequence[float], ys: Iterable[float], base: float) -> str:
    return f'<path class="{name}" d="M{_steps(xs, ys)}V{base:.1f}H{xs[0]:.1f}Z"/>'


def _rounded_up(value: float) -> float:
    """Return the next round number."""
    power = 10.0 ** (ceil(log10(value)) - 1)
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10.001) if step * power >= value)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers inside a range: some six."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** (ceil(log10(span / _TICKS)) - 1)
    step = next(one * power for one in (1, 2, 5, 10) if span / (one * power) <= _TICKS)
    first = ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, int(high / step + 1e-9) + 1)]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _short(decade: int) -> str:
    units = "", "k", "M", "G", "T"
    return f"{10 ** (decade % 3)}{units[min(decade // 3, 4)]}"
