"""The one place where a similarity is decided: stored values, float64, pair by pair."""

from __future__ import annotations

import numba
import numpy as np
import torch

__all__ = ["cosine_pairs", "exact_rows"]

_SAFE_MAGNITUDES = (1e-100, 1e100)  # squares between these stay inside float64


def exact_rows(block: np.ndarray) -> np.ndarray:
    """Return stored rows as float32 or float64 without changing a value that matters.

    float16 becomes float32, exactly. A float64 row so large or small that its square would leave
    float64 is scaled by a power of two, which changes no cosine.

    Parameters
    ----------
    block : float16, float32 or float64 array, shape (n, dim)
    """
    if block.dtype == np.float16:
        return torch.from_numpy(block).float().numpy()
    if block.dtype == np.float64 and block.size:
        largest = np.abs(block).max(axis=1)
        low, high = _SAFE_MAGNITUDES
        odd = np.flatnonzero((largest > 0) & ~((largest > low) & (largest < high)))
        if len(odd):
            block = block.copy()
            block[odd] = np.ldexp(block[odd], -np.frexp(largest[odd])[1][:, None])
    return block


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def cosine_pairs(left, right, i, j):
    """Cosine of pairs of rows.

    Products, norms and sums in float64; clipped to 1 and rounded to float32. Rows with equal
    values score exactly 1: their product and both squared norms are the same sum.

    Parameters
    ----------
    left, right : float32 or float64 arrays, shapes (n, dim) and (m, dim)
        From `exact_rows`; no NaN, no infinity, no zero row among those asked for.
    i, j : integer arrays, shape (pairs,)
        Rows of ``left`` and of ``right``.

    Returns
    -------
    float32 array, shape (pairs,)
    """
    similarity = np.empty(len(i), np.float32)
    for pair in range(len(i)):
        x, y = left[i[pair]], right[j[pair]]
        product, x_square, y_square = 0.0, 0.0, 0.0
        for k in range(left.shape[1]):
            a, b = np.float64(x[k]), np.float64(y[k])
            product += a * b
            x_square += a * a
            y_square += b * b
        cosine = product / (np.sqrt(x_square) * np.sqrt(y_square))
        similarity[pair] = min(1.0, max(-1.0, cosine))
    return similarity
