"""The plot of precision over the threshold."""

from __future__ import annotations

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import write_aside

__all__ = ["plot_precision"]


def plot_precision(estimates: pd.DataFrame, path: AnyPath, target: float | None = None) -> None:
    """Draw precision with its 95 % interval over the threshold: a PNG of 1200 x 800.

    Parameters
    ----------
    estimates : DataFrame
        From `dask_dedup.results.precision.precision`.
    path : AnyPath
    target : float, optional
        A wanted precision, which is marked.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6, 4), dpi=200, layout="constrained")
    axes = figure.subplots()
    known = estimates.dropna(subset="precision")
    axes.fill_between(
        known["threshold"], known["low"], known["high"], color="#4d7c2a", alpha=0.2, linewidth=0,
        label="95 % interval",
    )  # fmt: skip
    axes.plot(
        known["threshold"], known["precision"], color="#4d7c2a", marker="o", markersize=4,
        label="true duplicates among the edges at or above",
    )  # fmt: skip
    if target is not None:
        axes.axhline(target, color="#888888", linewidth=0.9, linestyle="--")
        axes.annotate(
            f"wanted: {target:.1%}", (0.99, target), (0, -9),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", fontsize=7,
            color="#666666",
        )  # fmt: skip
    axes.set(
        ylim=(0, 1.02),
        xlabel="threshold (cosine)",
        ylabel="precision",
        title=f"Precision by {int(estimates['labelled'].max()) if len(estimates) else 0:,} "
        f"labelled pairs",
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")
