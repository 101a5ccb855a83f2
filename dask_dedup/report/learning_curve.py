"""The learning curve of a trained compressor: one line an epoch, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import write_aside

__all__ = ["plot_curve", "write_curve_csv"]


def write_curve_csv(curve: Sequence[Mapping[str, Any]], path: AnyPath) -> None:
    """Write ``epoch``, ``learning_rate``, ``train_loss`` and ``validation_loss`` as CSV.

    Parameters
    ----------
    curve : sequence of mapping
        ``statistics["curve"]`` of a model; epoch 0, before training, has no training loss.
    """
    with write_aside(path) as temporary:
        pd.DataFrame(list(curve)).to_csv(temporary, index=False)


def plot_curve(
    curve: Sequence[Mapping[str, Any]], best_epoch: int, title: str, path: AnyPath
) -> None:
    """Draw both losses by epoch, the epoch whose weights were kept marked: a PNG of 1200 x 800."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), dpi=200, layout="constrained")
    axes = figure.subplots()
    trained = curve[1:]
    epochs = [entry["epoch"] for entry in trained]
    for name, colour in (("train", "#b0662a"), ("validation", "#1f6f8b")):
        losses = [entry[f"{name}_loss"] for entry in trained]
        axes.plot(epochs, losses, marker="o", markersize=3, color=colour, label=name)
    axes.axvline(best_epoch, color="#888888", linewidth=0.8, linestyle="--", label="kept")
    axes.set(xlabel="epoch", ylabel="loss", title=title, ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")
