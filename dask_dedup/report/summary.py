"""``summary.json``: what a run found, what it cost, and how well it did."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

__all__ = ["StageTime", "count_clusters", "versions"]

_PACKAGES = ("dask", "distributed", "faiss-cpu", "torch", "numpy", "pandas", "pyarrow", "numba")


class StageTime(dict[str, Any]):
    """One entry of ``stages``: ``name``, ``seconds``, ``rows_per_second``."""

    def __init__(self, name: str, seconds: float, rows: int) -> None:
        rate = round(rows / seconds, 1) if seconds > 0 else None
        super().__init__(name=name, seconds=round(seconds, 3), rows_per_second=rate)


def count_clusters(histogram: pd.DataFrame, rows: int, invalid_rows: int) -> dict[str, Any]:
    """Count as the paper does: duplicates are the valid rows less their clusters.

    Parameters
    ----------
    histogram : DataFrame
        From `histogram_frame`: singles counted, invalid rows not.
    rows, invalid_rows : int
    """
    clusters = int(histogram["clusters"].sum())
    valid = rows - invalid_rows
    groups = histogram["cluster_size"] >= 2
    return {
        "rows": rows,
        "invalid_rows": invalid_rows,
        "clusters": clusters,
        "duplicates": valid - clusters,
        "duplicate_fraction": (valid - clusters) / valid if valid else 0.0,
        "clusters_of_two_or_more": int(histogram.loc[groups, "clusters"].sum()),
        "largest_cluster": int(histogram["cluster_size"].max()) if clusters else 0,
    }


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of this package, of Python and of what the result may depend on."""
    return {
        "dask_dedup": version("dask_dedup"),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
