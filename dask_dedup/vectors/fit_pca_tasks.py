"""What the workers do to fit a compressor: one function per kind of task."""

from __future__ import annotations

import numpy as np
import torch

from dask_dedup.data.spans import Span
from dask_dedup.errors import InputError
from dask_dedup.vectors.pca import PcaModel, fit_axes
from dask_dedup.vectors.unit import prepare_block

__all__ = ["fit", "read_units"]


def read_units(span: Span, row_ids: np.ndarray) -> torch.Tensor:
    """Return the usable ones of some rows at unit length."""
    return prepare_block(span.embeddings.gather(row_ids)).units()


def fit(blocks: list[torch.Tensor], dim: int, path: str, sampled: int) -> PcaModel:
    """Fit the PCA on one sample."""
    torch.set_num_threads(1)
    sample = torch.cat(blocks)
    if not len(sample):
        raise InputError(
            f"{path}: none of {sampled} sampled embeddings is usable; "
            f"all are zero, NaN or infinite."
        )
    return fit_axes(sample, dim)
