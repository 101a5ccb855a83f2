"""``summary.json``: what a run found, what it cost, and how well it did."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

__all__ = [
    "StageTime",
    "count_clusters",
    "largest_clusters",
    "sum_linked_through_others",
    "versions",
]

_PACKAGES = ("dask", "distributed", "faiss-cpu", "torch", "numpy", "pandas", "pyarrow", "numba")
LARGEST = 5  # clusters that are named


class StageTime(dict[str, Any]):
    """One entry of ``stages``: ``name``, ``seconds``, ``rows_per_second``.

    ``rows`` are those of this start; where there are none, the rate is None.
    """

    def __init__(self, name: str, seconds: float, rows: int) -> None:
        rate = round(rows / seconds, 1) if rows and seconds > 0 else None
        super().__init__(name=name, seconds=round(seconds, 3), rows_per_second=rate)


def count_clusters(histogram: pd.DataFrame, rows: int, invalid_rows: int) -> dict[str, Any]:
    """Count as the paper does: duplicates are the valid rows less their clusters.

    ``duplicate_fraction`` is their share of the valid rows.

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


def sum_linked_through_others(
    records: Sequence[Mapping[str, Any]], duplicates: int = 0
) -> dict[str, Any]:
    """Sum what `dask_dedup.results.clusters.count_linked_through_others` has counted, part by part.

    Returns
    -------
    dict
        ``rows``; ``share`` of the duplicates (0 to 1); ``below_0.8``; ``lowest``, the least
        similarity, None without such rows.
    """
    rows = sum(record["rows"] for record in records)
    return {
        "rows": rows,
        "share": rows / duplicates if duplicates else 0.0,
        "below_0.8": sum(record["below_0.8"] for record in records),
        "lowest": min((record["lowest"] for record in records if record["rows"]), default=None),
    }


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of this package, of Python and of what the result may depend on."""
    return {
        "dask_dedup": version("dask_dedup"),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def largest_clusters(clusters: Iterable[Mapping[str, int]]) -> list[dict[str, int]]:
    """Return the five largest of some clusters: ``cluster_id`` and ``rows``, of two or more.

    Of clusters as large as each other those of smaller ids come first.
    """
    real = [dict(one) for one in clusters if one["rows"] > 1]
    return sorted(real, key=lambda one: (-one["rows"], one["cluster_id"]))[:LARGEST]
