"""The plot of a sweep: what each threshold would drop, how many clusters, how large."""

from __future__ import annotations

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import write_aside

__all__ = ["plot_sweep"]

_DROPPED, _BOUND, _SIZE, _PRECISION = "#1f6f8b", "#9bc4cf", "#c2571a", "#4d7c2a"


def plot_sweep(
    counts: pd.DataFrame,
    own_threshold: float,
    path: AnyPath,
    precision: pd.DataFrame | None = None,
) -> None:
    """Draw a sweep: a PNG of 1200 x 1100.

    Above, the share of rows that are duplicates, and of those without an edge to the row that
    represents their cluster; below, the clusters of two or more and the size of the largest.

    Parameters
    ----------
    counts : DataFrame
        From `dask_dedup.results.sweep.sweep`, thresholds rising.
    own_threshold : float
        That of the run, which is marked.
    path : AnyPath
    precision : DataFrame, optional
        From `dask_dedup.results.precision.precision`, drawn with its interval.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    figure = Figure(figsize=(6, 5.5), dpi=200, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    thresholds, kept = counts["threshold"], counts["kept_fraction"]
    dropped = 1 - kept
    # What one row is as a share.
    scale = (dropped / counts["duplicates"]).where(counts["duplicates"] > 0, 0.0)
    bound = counts["without_edge_to_representative"] * scale
    above.plot(thresholds, dropped, color=_DROPPED, linewidth=2, label="duplicates")
    above.fill_between(
        thresholds, 0, bound, color=_BOUND, alpha=0.6, linewidth=0,
        label="of these, no edge to their representative",
    )  # fmt: skip
    if precision is not None:
        known = precision.dropna(subset="precision")
        above.fill_between(
            known["threshold"], known["low"], known["high"], color=_PRECISION, alpha=0.2,
            linewidth=0,
        )  # fmt: skip
        above.plot(
            known["threshold"], known["precision"], color=_PRECISION, marker="o", markersize=3,
            linewidth=1.2, label="precision of the edges (95 %)",
        )  # fmt: skip
    top = 1.4 if precision is not None else max(float(dropped.max()) * 1.3, 0.01)
    above.set(ylim=(0, top), ylabel="share of rows", title="What each threshold would find")
    above.yaxis.set_major_formatter(PercentFormatter(1))
    if precision is not None:
        above.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    below.plot(
        thresholds, counts["clusters_of_two_or_more"], color=_DROPPED, linewidth=2,
        label="clusters of two or more",
    )  # fmt: skip
    below.plot(
        thresholds, counts["largest_cluster"], color=_SIZE, linewidth=2,
        label="rows of the largest cluster",
    )  # fmt: skip
    below.set(yscale="log", xlabel="threshold (cosine)")
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    numbers = counts[["clusters_of_two_or_more", "largest_cluster"]]
    lowest, highest = (
        max(float(end), 1.0) for end in (numbers.min(axis=None), numbers.max(axis=None))
    )
    below.set_ylim(lowest / 1.5, highest * (highest / lowest) ** 0.4 * 2)
    for axes in (above, below):
        axes.axvline(own_threshold, color="#888888", linewidth=0.9, linestyle="--")
        axes.legend(frameon=False, fontsize=7.5, loc="upper right")
        axes.grid(which="major", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.minorticks_off()
    above.annotate(
        f"this run: {own_threshold:g}", (own_threshold, 0), (-3, 4), rotation=90, ha="right",
        textcoords="offset points", fontsize=7, color="#666666",
    )  # fmt: skip
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")
