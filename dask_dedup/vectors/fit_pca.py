"""Fitting a compressor on a data set's seeded sample, on Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask.delayed import Delayed, delayed

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.spans import cut_spans
from dask_dedup.runtime.executor import Execute, OnWorker, compute_tasks, ignore_result
from dask_dedup.vectors.sample import sample_row_ids, split_rows

if TYPE_CHECKING:
    from dask_dedup.vectors.pca import PcaModel

__all__ = ["fit_pca", "pca_task"]

_PURPOSE = 1  # of the sample: see vectors.sample


def fit_pca(
    dataset: Dataset,
    dim: int = 64,
    *,
    sample_rows: int = 16_384,
    seed: int = 0,
    execute: Execute = compute_tasks,
) -> PcaModel:
    """Fit a PCA on a seeded sample of all parts; computes.

    The rows are those of smallest hash(seed, row_id), gathered in ``row_id`` order and fitted in
    one task with one thread, so that the result is the same for any parts, workers and threads.

    Parameters
    ----------
    dataset : Dataset
    dim : int
        Axes to keep.
    sample_rows : int
        Rows of the sample; unusable ones among them are left out.
    seed : int

    Returns
    -------
    PcaModel
        In memory; ``kept`` is ``dim``, or the dimension of the rows where that is less.

    Raises
    ------
    InputError
        No sampled row is usable.

    Notes
    -----
    One task holds the sample, whatever the number of rows: 50 MB at 768 dimensions, and copies.
    """
    task = pca_task(dataset, dim, sample_rows=sample_rows, seed=seed)
    (model,) = execute([task], ignore_result)
    return model


def pca_task(dataset: Dataset, dim: int, *, sample_rows: int, seed: int) -> Delayed:
    """Return the task that fits, for others to wait for: a PcaModel; arguments as of `fit_pca`.

    Computed, it raises InputError where no sampled row is usable.
    """
    chosen = sample_row_ids(dataset.rows, sample_rows, seed, _PURPOSE)
    spans = cut_spans(dataset.filled_parts)
    blocks = [_task("read_units")(span, ids) for span, ids in split_rows(chosen, spans)]
    return _task("fit")(blocks, dim, str(dataset.path), len(chosen))


def _task(name: str) -> Delayed:
    return delayed(OnWorker("dask_dedup.vectors.fit_pca_tasks", name))
