"""Fitting a compressor on a data set's seeded sample, on Dask."""

from __future__ import annotations

import numpy as np
import torch
from dask.delayed import Delayed, delayed

from dask_dedup.compress.pca import PcaModel, fit_axes
from dask_dedup.compress.sample import sample_row_ids, split_by_part
from dask_dedup.compress.vectors import prepare_block
from dask_dedup.errors import InputError
from dask_dedup.io.dataset import Dataset
from dask_dedup.io.parts import Part, gather_rows
from dask_dedup.tasks import Execute, compute_tasks, ignore_result

__all__ = ["fit_pca", "pca_task"]

_PURPOSE = 1  # of the sample: see compress.sample


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
    one task with one thread, so that parts, workers and threads play no part.

    Parameters
    ----------
    dataset : Dataset
    dim : int
        Axes to keep.
    sample_rows : int
        Rows of the sample; unusable ones among them are left out.
    seed : int

    Raises
    ------
    InputError
        No sampled row is usable.
    """
    task = pca_task(dataset, dim, sample_rows=sample_rows, seed=seed)
    (model,) = execute([task], ignore_result)
    return model


def pca_task(dataset: Dataset, dim: int, *, sample_rows: int, seed: int) -> Delayed:
    """Return the task that fits, for others to wait for: a PcaModel; arguments as of `fit_pca`.

    Computed, it raises InputError where no sampled row is usable.
    """
    chosen = sample_row_ids(dataset.rows, sample_rows, seed, _PURPOSE)
    blocks = [delayed(_read_units)(part, ids) for part, ids in split_by_part(chosen, dataset.parts)]
    return delayed(_fit)(blocks, dim, str(dataset.path), len(chosen))


def _read_units(part: Part, row_ids: np.ndarray) -> torch.Tensor:
    """Return the usable ones of some rows at unit length."""
    return prepare_block(gather_rows(part.embeddings, row_ids - part.row_start)).units()


def _fit(blocks: list[torch.Tensor], dim: int, path: str, sampled: int) -> PcaModel:
    torch.set_num_threads(1)
    sample = torch.cat(blocks)
    if not len(sample):
        raise InputError(
            f"{path}: none of {sampled} sampled embeddings is usable; "
            f"all are zero, NaN or infinite."
        )
    return fit_axes(sample, dim)
