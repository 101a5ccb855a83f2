"""The Pareto plot: recall against queries per second, models beside each other, then each alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import write_aside

__all__ = ["own_front", "plot_pareto"]

_MARKERS = "osD^vP*X<>hd"
_COLUMNS = 2  # panels side by side
_LABELLED = 14  # lines of one panel that can carry a name and stay legible


def plot_pareto(points: pd.DataFrame, k: int, title: str, path: AnyPath) -> None:
    """Draw recall@k against queries per second: which model is best first, then why.

    The first panel has the front of each model, a colour a model. A panel for each model follows,
    axes and colours shared: a line is one factory over its search settings, slowest to fastest;
    colour is bytes per vector on a logarithmic scale; the front of all models together is grey.

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
    width = 5.4 * max(columns, 1.5) + 1
    figure = Figure(figsize=(width, 3.9 * panels + 5.2), dpi=160, layout="constrained")
    heights = (4.6, 3.9 * panels + 0.6)
    first, others = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_fronts(first.subplots(), points, models, k)
    first.suptitle(title)
    axes = others.subplots(panels, columns, sharex=True, sharey=True, squeeze=False)
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
        panel.plot(
            front["queries_per_second"], front[f"recall@{k}"],
            color="#cccccc", linewidth=4, drawstyle="steps-pre", zorder=1, solid_capstyle="round",
        )  # fmt: skip
        _draw_model(panel, points[points["model"] == models[index]], k, colours, markers)
        panel.set(xscale="log", ylim=(0, 1.02), title=models[index])
        panel.tick_params(labelbottom=True)
        _make_plain(panel)
    others.supxlabel("queries per second")
    others.supylabel(f"recall@{k}")
    others.suptitle("each model's indexes; grey: the front of all", fontsize="medium")
    others.colorbar(colours, ax=axes, label="bytes per vector", shrink=0.8)
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")


def own_front(points: pd.DataFrame, k: int) -> pd.DataFrame:
    """Return the points that no other of them beats in both recall and speed, fastest first."""
    ordered = points.sort_values(["queries_per_second", f"recall@{k}"], ascending=False)
    best_before = ordered[f"recall@{k}"].cummax().shift(fill_value=-1.0)
    return ordered[ordered[f"recall@{k}"] > best_before]


def _draw_fronts(axes: Any, points: pd.DataFrame, models: list[str], k: int) -> None:
    """Draw the front of each model, a colour a model; the legend in the order of their recall."""
    from matplotlib import colormaps

    colours = colormaps["tab10" if len(models) <= 10 else "tab20"]
    fronts = {model: own_front(points[points["model"] == model], k) for model in models}
    order = sorted(models, key=lambda model: -fronts[model][f"recall@{k}"].max())
    for model in order:
        front = fronts[model]
        number = models.index(model)
        axes.plot(
            front["queries_per_second"], front[f"recall@{k}"], color=colours(number % colours.N),
            marker=_MARKERS[number % len(_MARKERS)], markersize=5, linewidth=1.8,
            drawstyle="steps-post",
            label=f"{model}, up to {front[f'recall@{k}'].max():.3f}",
        )  # fmt: skip
    axes.set(
        xscale="log",
        xlabel="queries per second",
        ylabel=f"recall@{k}",
        title="the front of each model: further up and to the right is better",
    )
    _make_plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_model(
    axes: Any, own: pd.DataFrame, k: int, colours: Any, markers: Mapping[str, str]
) -> None:
    """Draw the indexes of one model, a line each."""
    factories = list(dict.fromkeys(own["factory"]))
    for factory in factories:
        line = own[own["factory"] == factory].sort_values("queries_per_second")
        size_bytes = line["bytes_per_vector"].iloc[0]
        axes.plot(
            line["queries_per_second"], line[f"recall@{k}"],
            color=colours.to_rgba(size_bytes), marker=markers[factory], markersize=4.5,
            linewidth=1.2, label=f"{factory} ({size_bytes:.0f} B)", zorder=2,
        )  # fmt: skip
    if len(factories) <= _LABELLED:
        axes.legend(frameon=False, fontsize=6, loc="lower left")


def _make_plain(axes: Any) -> None:
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
