"""All pairs of images within a radius: one matrix product and one scan of its signs.

With a = [x, -|x|^2/2, 1] and b = [y, 1, (r^2 - |y|^2)/2] the product a.b is at least 0 exactly
where |x - y| <= r.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

__all__ = ["left_factor", "near_pairs", "right_factor"]

_FAR = -1e30  # in a factor: makes every product with it negative


def left_factor(image: torch.Tensor, usable: np.ndarray | None = None) -> torch.Tensor:
    """Return [x, -|x|^2/2, 1] for each row x: float32, shape (n, width + 2).

    Parameters
    ----------
    image : float16 or float32 tensor, shape (n, width)
    usable : bool array, shape (n,), optional
        Rows that may be near to anything; the others are near to nothing.
    """
    factor, half_square = _widen(image)
    factor[:, -2] = -half_square
    factor[:, -1] = 1.0
    if usable is not None:
        factor[torch.from_numpy(~usable), -2] = _FAR
    return factor


def right_factor(
    image: torch.Tensor, radius: float, usable: np.ndarray | None = None
) -> torch.Tensor:
    """Return [y, 1, (r^2 - |y|^2)/2] for each row y: float32, shape (n, width + 2)."""
    factor, half_square = _widen(image)
    factor[:, -2] = 1.0
    factor[:, -1] = radius**2 / 2 - half_square
    if usable is not None:
        factor[torch.from_numpy(~usable), -1] = _FAR
    return factor


def _widen(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows as float32 with two columns more, and half their squared lengths."""
    factor = torch.empty(len(image), image.shape[1] + 2)
    rows = factor[:, :-2]
    rows.copy_(image)
    return factor, torch.linalg.vecdot(rows, rows).mul_(0.5)


@numba.njit(cache=True, nogil=True)
def near_pairs(product, first_column):
    """Find where a product is at least 0.

    Parameters
    ----------
    product : float32 array, shape (rows, columns), C order
    first_column : int64 array, shape (rows,)
        Columns before it are passed over.

    Returns
    -------
    i, j : int64 arrays, shape (hits,)
        Row and column of each hit, in order.
    """
    signs = product.view(np.int32)  # integers: the compiler turns the loops into vector code
    rows, columns = product.shape
    count = np.zeros(rows, np.int64)
    total = 0
    for i in range(rows):
        every = np.int32(-1)
        for j in range(first_column[i], columns):
            every &= signs[i, j]
        if every >= 0:  # some sign bit is clear
            hits = 0
            for j in range(first_column[i], columns):
                hits += signs[i, j] >= 0
            count[i] = hits
            total += hits
    found_i, found_j = np.empty(total, np.int64), np.empty(total, np.int64)
    at = 0
    for i in range(rows):
        if count[i]:
            for j in range(first_column[i], columns):
                if signs[i, j] >= 0:
                    found_i[at], found_j[at] = i, j
                    at += 1
    return found_i, found_j
