"""Raw embedding blocks as the matrix products want them: float32 rows, lengths, usable or not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

__all__ = ["INVALID_REASONS", "UNREADABLE", "Block", "VectorBlock", "prepare_block", "unit_rows"]

#: What the codes of `VectorBlock.reason` mean; 0 is a usable row.
INVALID_REASONS = ("", "nan", "infinite", "zero", "unreadable")
#: Of the rows of a file that is quarantined, which are read as NaN.
UNREADABLE = INVALID_REASONS.index("unreadable")

_SAFE_LENGTHS = (1e-15, 1e15)  # between these, squares in float32 neither vanish nor overflow


class VectorBlock(NamedTuple):
    """A block of rows, ready for matrix products.

    Attributes
    ----------
    rows : float32 tensor, shape (n, dim)
        Not normalised. An unusable row is all zero.
    lengths : float32 tensor, shape (n,)
        Euclidean length of each of `rows`; 1 for an unusable row.
    reason : uint8 array, shape (n,)
        Index into `INVALID_REASONS`.
    """

    rows: torch.Tensor
    lengths: torch.Tensor
    reason: np.ndarray

    def units(self) -> torch.Tensor:
        """Return the usable rows at unit length: float32, shape (usable, dim)."""
        usable = torch.from_numpy(self.reason == 0)
        return self.rows[usable] / self.lengths[usable, None]


class Block(NamedTuple):
    """A block of a data set's rows, as stages pass it to callers that watch them.

    ``row_start`` int; ``stored`` array (n, dim); ``vectors`` VectorBlock.
    """

    row_start: int
    stored: np.ndarray
    vectors: VectorBlock


def prepare_block(block: np.ndarray, buffer: torch.Tensor | None = None) -> VectorBlock:
    """Convert a block to float32, measure its rows, and set unusable ones to zero.

    Parameters
    ----------
    block : float16, float32 or float64 array, shape (n, dim)
        As stored; it is not changed.
    buffer : float32 tensor, shape (at least n, dim), optional
        Where to put the rows: a fresh allocation costs ten times the conversion.
    """
    if block.dtype == np.float32 and buffer is None:
        rows = torch.from_numpy(block)
    else:
        target = torch.empty(block.shape) if buffer is None else buffer[: len(block)]
        rows = target.copy_(torch.from_numpy(block))
    lengths = torch.linalg.vector_norm(rows, dim=1)
    reason = np.zeros(len(block), np.uint8)
    low, high = _SAFE_LENGTHS
    suspects = np.flatnonzero(~((lengths > low) & (lengths < high)).numpy())
    if len(suspects) and rows.data_ptr() == block.ctypes.data:
        rows = rows.clone()
    for i in suspects:
        unit, reason[i] = _examine(block[i])
        rows[i] = torch.from_numpy(unit)
        lengths[i] = 1.0
    return VectorBlock(rows, lengths, reason)


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return rows at unit length; a zero row, such as an unusable one's, stays zero."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)


def _examine(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return one row at unit length, and 0; or zeros, and why it cannot be used."""
    wide = values.astype(np.float64)
    zeros = np.zeros(len(wide), np.float32)
    if np.isnan(wide).any():
        return zeros, INVALID_REASONS.index("nan")
    largest = np.abs(wide).max()
    if np.isinf(largest):
        return zeros, INVALID_REASONS.index("infinite")
    if largest == 0:
        return zeros, INVALID_REASONS.index("zero")
    wide /= largest
    return (wide / np.linalg.norm(wide)).astype(np.float32), 0
