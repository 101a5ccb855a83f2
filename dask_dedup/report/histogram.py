"""The duplication histogram: how many clusters there are of each size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from io import BytesIO

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
    bins = []
    low, high = 1, 1
    while low <= (histogram["cluster_size"].max() if len(histogram) else 0):
        inside = histogram[histogram["cluster_size"].between(low, high)]
        if len(inside):
            label = f"{low:,}" if low == high else f"{low:,}–{high:,}"
            bins.append((label, int(inside["clusters"].sum()), int(inside["rows"].sum())))
        low, high = high + 1, 2 * high
    return bins


def prepare_plots() -> None:
    """Do what takes long at the first plot: imports, and the search for fonts."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_axes((0, 0, 1, 1)).set(xscale="log", title="≥ 0.95")
    figure.savefig(io.BytesIO(), format="png")


def plot_histogram(histogram: pd.DataFrame, threshold: float, path: AnyPath) -> None:
    """Draw clusters by size, both axes logarithmic, as the paper does: a PNG of 1200 x 800."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(6, 4), dpi=200)
    axes = figure.add_axes((0.12, 0.13, 0.85, 0.78))
    axes.scatter(histogram["cluster_size"], histogram["clusters"], s=14, color="#1f6f8b")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="rows in the cluster",
        ylabel="clusters",
        title=f"Duplication histogram, cosine ≥ {threshold:g}",
    )
    axes.yaxis.set_major_locator(LogLocator())
    axes.minorticks_off()
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    with write_aside(path) as temporary:
        figure.savefig(temporary, format="png")
