"""Precision and recall over the tolerance T, and over a fixed threshold, as a picture."""

from __future__ import annotations

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import write_aside

__all__ = ["plot_tolerance"]

_COLOURS = {"verified": "#1f6f8b", "unverified": "#c8553d", "fixed": "#888888"}


def plot_tolerance(
    curves: pd.DataFrame, chosen: dict[str, tuple[float, float]], path: AnyPath
) -> None:
    """Draw precision against recall for each rule, and where the chosen T lie: a PNG.

    Parameters
    ----------
    curves : DataFrame
        ``rule``, ``precision``, ``recall``; see `dask_dedup.pipeline.tolerance_table.calibrate`.
    chosen : dict
        Recall and precision of the chosen point of a rule.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=200, layout="constrained")
    axes = figure.subplots()
    for rule, table in curves.groupby("rule", sort=False):
        colour = _COLOURS.get(str(rule))
        axes.plot(table["recall"], table["precision"], color=colour, label=rule, linewidth=1.4)
        if rule in chosen:
            axes.plot(*chosen[str(rule)], "o", color=colour)
    axes.set(
        xlabel="recall, each query alike",
        ylabel="precision before verification",
        title="Adaptive threshold: precision and recall over T",
        ylim=(0, 1.02),
    )
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")
