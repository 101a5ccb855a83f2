"""The duplication histogram: how many clusters there are of each size."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import read_content

__all__ = [
    "bin_sizes",
    "histogram_frame",
    "plot_histogram",
    "prepare_plots",
    "read_histogram",
    "write_histogram_csv",
]


def histogram_frame(sizes: Mapping[int, int]) -> pd.DataFrame:
    """Return ``cluster_size``, ``clusters`` and ``rows`` (their product), by rising size.

    Parameters
    ----------
    sizes : mapping
        Cluster size to number of clusters; singles included, invalid rows not.
    """
    frame = pd.DataFrame(sorted(sizes.items()), columns=["cluster_size", "clusters"], dtype="int64")
    frame["rows"] = frame["cluster_size"] * frame["clusters"]
    return frame


def write_histogram_csv(histogram: pd.DataFrame, path: AnyPath) -> None:
    """Write `histogram_frame` as CSV."""
    with write_aside(path) as temporary:
        histogram.to_csv(temporary, index=False)


def read_histogram(path: AnyPath) -> pd.DataFrame:
    """Read what `write_histogram_csv` wrote."""
    return pd.read_csv(BytesIO(read_content(path)), dtype="int64")


def bin_sizes(histogram: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Sum a histogram over 1, 2, 3-4, 5-8, …: (label, clusters, rows) of each filled bin."""
    return [
        (f"{low:,}" if low == high else f"{low:,}–{high:,}", clusters, rows)
        for low, high, clusters, rows in _bins(histogram)
        if clusters
    ]


def _bins(histogram: pd.DataFrame) -> Iterator[tuple[int, int, int, int]]:
    """Yield the limits of each bin, inclusive, and its clusters and rows."""
    low, high = 1, 1
    while low <= (histogram["cluster_size"].max() if len(histogram) else 0):
        inside = histogram[histogram["cluster_size"].between(low, high)]
        yield low, high, int(inside["clusters"].sum()), int(inside["rows"].sum())
        low, high = high + 1, 2 * high


def prepare_plots() -> None:
    """Do what takes long at the first plot: imports, and the search for fonts."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_axes((0, 0, 1, 1)).set(xscale="log", title="≥ 0.95")
    figure.savefig(io.BytesIO(), format="png")


def plot_histogram(
    histogram: pd.DataFrame,
    threshold: float,
    path: AnyPath,
    largest: Sequence[Mapping[str, int]] = (),
) -> None:
    """Draw clusters by size in bins that double, their number above, their share of rows below.

    Parameters
    ----------
    histogram : DataFrame
        From `histogram_frame`.
    threshold : float
    path : AnyPath
        Gets a PNG of 1400 x 1000.
    largest : sequence of mapping
        ``cluster_id`` and ``rows`` of the largest clusters, which are named.
    """
    from matplotlib.figure import Figure

    bins = list(_bins(histogram))
    labels = [_compact(low, high) for low, high, _, _ in bins]
    counts = [clusters for _, _, clusters, _ in bins]
    total = sum(rows for _, _, _, rows in bins)
    shares = [100 * rows / total for _, _, _, rows in bins]
    figure = Figure(figsize=(7, 5), dpi=200, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.set(yscale="log", title=f"Clusters by size, cosine ≥ {threshold:g}")
    texts = [_count(count) for count in counts]
    _draw_bars(above, counts, texts, "clusters", "#1f6f8b")
    above.set_ylim(0.7, 4 * max(counts, default=1))
    _draw_bars(below, shares, [_per_cent(share) for share in shares], "share of rows", "#c46a2b")
    below.set_ylim(0, 1.25 * max(shares, default=1))
    below.yaxis.set_major_formatter("{x:g} %")
    below.set_xlabel("rows in the cluster")
    is_crowded = len(bins) > 8
    below.set_xticks(
        range(len(bins)),
        labels,
        rotation=35 if is_crowded else 0,
        ha="right" if is_crowded else "center",
        fontsize=8,
    )
    named = [f"{one['rows']:,} rows: cluster {one['cluster_id']}" for one in largest]
    if named:
        above.text(
            0.99, 0.97, "\n".join(["largest clusters", *named]), transform=above.transAxes,
            ha="right", va="top", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "#dddddd", "alpha": 0.9},
        )  # fmt: skip
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")


def _compact(low: int, high: int) -> str:
    """Return the limits of a bin, in thousands or millions where they are large: ``33k–66k``."""

    def short(value: int) -> str:
        for unit, name in ((10**6, "M"), (10**3, "k")):
            if high >= 2 * unit:
                return (
                    f"{value / unit:.2g}{name}" if value < 10 * unit else f"{value // unit}{name}"
                )
        return str(value)

    return short(low) if low == high else f"{short(low)}–{short(high)}"


def _count(clusters: int) -> str:
    if clusters >= 10**6:
        return f"{clusters / 10**6:,.3g}M"
    return f"{clusters:,}" if clusters else ""


def _per_cent(share: float) -> str:
    """Return a share as text; nothing of one that is seen to be next to nothing."""
    return "" if share < 0.1 else f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


def _draw_bars(
    axes: Any, heights: Sequence[float], texts: Sequence[str], name: str, colour: str
) -> None:
    bars = axes.bar(range(len(heights)), heights, width=0.85, color=colour)
    axes.bar_label(bars, texts, fontsize=7, padding=2)
    axes.set_ylabel(name)
    axes.minorticks_off()
    axes.grid(axis="y", which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
