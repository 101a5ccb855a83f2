"""The Pareto plot: recall against queries per second, a line for each index, colour by its size."""

from __future__ import annotations

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import write_aside

__all__ = ["plot_pareto"]

_MARKERS = "osD^vP*X<>hd"
_COLUMNS = 2  # panels side by side
_LABELLED = 14  # lines of one panel that can carry a name and stay legible


def plot_pareto(points: pd.DataFrame, k: int, title: str, path: AnyPath) -> None:
    """Draw recall@k against queries per second: one panel for each model, axes and colours shared.

    A line is one factory over its search settings, slowest to fastest. Colour is bytes per vector
    on a logarithmic scale. The front of all models together is drawn in grey in every panel.

    Parameters
    ----------
    points : DataFrame
        ``model``, ``factory``, ``bytes_per_vector``, ``recall@k``, ``queries_per_second``,
        ``front``.
    k : int
    title : str
    path : AnyPath
        Gets a PNG.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(points["model"]))
    columns = min(_COLUMNS, len(models))
    panels = -(-len(models) // columns)
    figure = Figure(figsize=(5.4 * columns + 1, 3.9 * panels + 0.5), dpi=160, layout="constrained")
    axes = figure.subplots(panels, columns, sharex=True, sharey=True, squeeze=False)
    low, high = points["bytes_per_vector"].min(), points["bytes_per_vector"].max()
    colours = ScalarMappable(LogNorm(low * 0.99, high * 1.01), "viridis_r")
    markers = {
        factory: _MARKERS[i % len(_MARKERS)]
        for i, factory in enumerate(dict.fromkeys(points["factory"]))
    }
    front = points[points["front"]].sort_values("queries_per_second")
    for index, panel in enumerate(axes.flat):
        if index >= len(models):
            panel.set_visible(False)
            continue
        own = points[points["model"] == models[index]]
        panel.plot(
            front["queries_per_second"], front[f"recall@{k}"],
            color="#cccccc", linewidth=4, drawstyle="steps-pre", zorder=1, solid_capstyle="round",
        )  # fmt: skip
        factories = list(dict.fromkeys(own["factory"]))
        for factory in factories:
            line = own[own["factory"] == factory].sort_values("queries_per_second")
            colour = colours.to_rgba(line["bytes_per_vector"].iloc[0])
            panel.plot(
                line["queries_per_second"], line[f"recall@{k}"],
                color=colour, marker=markers[factory], markersize=4.5, linewidth=1.2,
                label=f"{factory} ({line['bytes_per_vector'].iloc[0]:.0f} B)", zorder=2,
            )  # fmt: skip
        panel.set(xscale="log", ylim=(0, 1.02), title=models[index])
        panel.grid(which="major", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelbottom=True)
        if len(factories) <= _LABELLED:
            panel.legend(frameon=False, fontsize=6, loc="lower left")
    figure.supxlabel("queries per second")
    figure.supylabel(f"recall@{k}")
    figure.suptitle(title)
    figure.colorbar(colours, ax=axes, label="bytes per vector", shrink=0.8)
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")
