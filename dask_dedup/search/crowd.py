"""Crowds: cells of which the PCA cannot tell the rows apart.

In a crowd, rows lie close together along the axes of the PCA and differ along the others, so that
the filter lets a large share of all pairs through. To look at these one by one takes longer than
the product of the full rows, which is taken here: in bfloat16 where the processor multiplies it (a
fifth of the time), with a margin for its rounding. No pair is lost; what passes is verified like
any candidate. Ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain
from time import perf_counter

import numpy as np
import torch

from dask_dedup.compress.verify import SHORT_LENGTH, short_margin
from dask_dedup.search.candidates import Candidates
from dask_dedup.search.grid_filter import PRODUCT, GridRows, near_grid_rows
from dask_dedup.search.sign_filter import near_products

__all__ = ["add_tiles", "full_factors"]

# Share of all pairs that pass the filter, from where on the product of full rows takes less time.
_CROWDED = {torch.float32: 0.12, torch.bfloat16: 0.03}
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2.0**-8 + 1e-4}  # what a cosine may lose

_ROWS_AT_ONCE = 4096  # of a tile, as factors
_BLOCK = 512  # rows and columns of a product: always, as a new shape costs a millisecond
_DEPTH_STEP = 32  # for the same reason, and since odd depths take longer

_CPU = torch.device("cpu")


def add_tiles(
    images: GridRows,
    limit: int,
    rows: np.ndarray,
    columns: np.ndarray | None,
    batch: Candidates,
    device: torch.device = _CPU,
) -> None:
    """Send the near pairs of two tiles to ``batch``.

    Parameters
    ----------
    images : GridRows
        Of all records.
    limit : int
        Squared distance in steps that a pair may have.
    rows : int64 array
        Records of the first tile.
    columns : int64 array or None
        Those of the second; None: it is the first, and pairs i < j are looked at.
    batch : Candidates
    device : torch.device
        Where the products run.
    """
    others = rows if columns is None else columns
    left = images.take(rows)
    right = left if columns is None else images.take(columns)
    products = near_grid_rows(left, right, limit, columns is None, device)
    for i, j in products:
        tried = min(PRODUCT[0], len(rows)) * min(PRODUCT[1], len(others))
        # Another device may sum up bfloat16 in bfloat16, which the margin does not allow for.
        dtype = _quicker_dtype() if device.type == "cpu" else torch.float32
        if len(i) > _CROWDED[dtype] * tried:
            products = _full_products(rows, columns, batch, device, dtype)
        else:
            products = chain([(i, j)], products)
        break
    for i, j in products:
        batch.add(rows[i], others[j])


def full_factors(
    short: np.ndarray, cosine: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return [x, 1, 1] and [x, -t, -u] for each row x, and some zeros.

    A product is at least 0 where the cosine of two rows is; t + u is that, less what rounding
    takes.

    Parameters
    ----------
    short : int16 array, shape (n, dim)
        From `dask_dedup.compress.verify.short_rows`.
    cosine : float
    dtype : torch.dtype
        float32 or bfloat16.

    Returns
    -------
    left, right : tensors of this type
        Shape (n, dim + 2), both rounded up, to full blocks.
    """
    n, dim = short.shape
    least = torch.tensor(cosine - short_margin(dim) - _ROUNDING[dtype], dtype=torch.float64)
    coarse = least.to(dtype)
    left = torch.zeros(-(-n // _BLOCK) * _BLOCK, -(-(dim + 2) // _DEPTH_STEP) * _DEPTH_STEP)
    left[:n, :dim] = torch.from_numpy(short)
    left /= SHORT_LENGTH
    left[:, dim : dim + 2] = 1
    left = left.to(dtype)
    right = left.clone()
    right[:, dim], right[:, dim + 1] = -coarse, -(least - coarse.double()).to(dtype)
    return left, right


def _full_products(
    rows: np.ndarray,
    columns: np.ndarray | None,
    batch: Candidates,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of two tiles, as `near_products` does, that full rows say to be near."""
    others = rows if columns is None else columns
    for a in range(0, len(rows), _ROWS_AT_ONCE):
        left, right = _factors_of(rows[a : a + _ROWS_AT_ONCE], batch, dtype)
        for b in range(a if columns is None else 0, len(others), _ROWS_AT_ONCE):
            diagonal = columns is None and b == a
            if not diagonal:
                right = _factors_of(others[b : b + _ROWS_AT_ONCE], batch, dtype)[1]
            for i, j in near_products(left, right, diagonal, device, _BLOCK):
                there = (a + i < len(rows)) & (b + j < len(others))  # blocks are filled up
                yield a + i[there], b + j[there]


def _factors_of(
    records: np.ndarray, batch: Candidates, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    short = batch.short_rows(batch.rank[records])
    return full_factors(short, float(batch.threshold), dtype)


@cache
def _quicker_dtype() -> torch.dtype:
    """Try whether products in bfloat16 take less than half the time of those in float32."""
    seconds = {}
    for dtype in _CROWDED:
        rows = torch.ones(_BLOCK, _BLOCK, dtype=dtype)
        torch.mm(rows, rows.T)
        began = perf_counter()
        for _ in range(3):
            torch.mm(rows, rows.T)
        seconds[dtype] = perf_counter() - began
    much_less = seconds[torch.bfloat16] < 0.5 * seconds[torch.float32]
    return torch.bfloat16 if much_less else torch.float32
