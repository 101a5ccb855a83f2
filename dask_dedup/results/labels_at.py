"""Labels of a finished run at another threshold, lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from dask_dedup.graph.labels import DenseLabels, SparseLabels, label_densely, label_sparsely
from dask_dedup.graph.on_disk import How, choose_how
from dask_dedup.graph.origin import cut_rows
from dask_dedup.graph.stream import count_edges
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.finished_run import open_finished
from dask_dedup.schema import LABELS

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["labels_at"]


def labels_at(out: str | AnyPath, threshold: float) -> dd.DataFrame:
    """Label the clusters of a finished run at another threshold, from its forest alone.

    Parameters
    ----------
    out : path or URL
        OUT of a finished run.
    threshold : float
        Cosine; compared as float32, "at least".

    Returns
    -------
    dask DataFrame
        LABELS, indexed by ``row_id``, sorted: lazy, one partition per 1,048,576 rows of the data
        set, known divisions.

    Raises
    ------
    OutputError
        OUT holds no finished run.
    SettingsError
        The forest does not answer this threshold, or holds quantized distances.
    CapacityError
        One task labels, and this process's share of the memory does not hold the labels.

    Notes
    -----
    One task labels, in 8 bytes a row or in 100 per row that has a duplicate, whichever is quicker
    and fits; `dask_dedup.write_labels` does the same by files.
    """
    import dask.dataframe as dd
    from dask.delayed import delayed

    run = open_finished(out)
    path, rows = run.forest_path, run.rows
    run.forest_range().check(threshold, str(path))
    labels = delayed(_label)(str(path), rows, threshold, choose_how(count_edges(path)[0], rows))
    cuts = cut_rows(rows)
    return dd.from_delayed(
        [delayed(_between)(labels, start, stop) for start, stop in cuts],
        meta=LABELS,
        divisions=(*(start for start, _ in cuts), cuts[-1][1] - 1),
        prefix="labels-at",
    )


def _label(path: str, rows: int, threshold: float, how: How) -> DenseLabels | SparseLabels:
    if how == "stream":
        return label_densely(as_path(path), rows, threshold)
    return label_sparsely(as_path(path), threshold)


def _between(labels: DenseLabels | SparseLabels, start: int, stop: int) -> pd.DataFrame:
    return labels.between(start, stop)
