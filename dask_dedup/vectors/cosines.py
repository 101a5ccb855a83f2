"""The only module that computes a similarity: from stored values, in float64, pair by pair.

It is then rounded to float32, and whatever compares it (a threshold, the order of a forest)
compares float32.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

__all__ = [
    "SHORT_LENGTH",
    "cosine_pairs",
    "exact_rows",
    "may_reach",
    "short_margin",
    "short_rows",
]

_SAFE_MAGNITUDES = (1e-100, 1e100)  # squares between these stay inside float64
SHORT_LENGTH = 32_767  # of a row in int16: a sum of its products with another stays in int32


def exact_rows(block: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return stored rows as float32 or float64 without changing a value that matters.

    float16 becomes float32, exactly. A float64 row so large or small that its square would leave
    float64 is scaled by a power of two, which changes no cosine.

    Parameters
    ----------
    block : float16, float32 or float64 array, shape (n, dim)
    out : float32 or float64 array, shape (n, dim), optional
        Where to put the rows; no narrower than they are.
    """
    if block.dtype == np.float16:
        wide = torch.from_numpy(np.empty(block.shape, np.float32) if out is None else out)
        return wide.copy_(torch.from_numpy(block)).numpy()
    if block.dtype == np.float64 and block.size:
        largest = np.abs(block).max(axis=1)
        low, high = _SAFE_MAGNITUDES
        odd = np.flatnonzero((largest > 0) & ~((largest > low) & (largest < high)))
        if len(odd):
            block = block.copy()
            block[odd] = np.ldexp(block[odd], -np.frexp(largest[odd])[1][:, None])
    if out is None:
        return block
    out[:] = block
    return out


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def cosine_pairs(left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
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


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def short_rows(rows: np.ndarray) -> np.ndarray:
    """Return rows at length 32,767, for `may_reach`.

    Parameters
    ----------
    rows : float32 or float64 array, shape (n, dim)
        From `exact_rows`.

    Returns
    -------
    int16 array, shape (n, dim)
    """
    short = np.empty(rows.shape, np.int16)
    for i in range(rows.shape[0]):
        square = 0.0
        for k in range(rows.shape[1]):
            square += np.float64(rows[i, k]) * np.float64(rows[i, k])
        scale = SHORT_LENGTH / np.sqrt(square)
        for k in range(rows.shape[1]):
            short[i, k] = np.int16(np.rint(rows[i, k] * scale))
    return short


@numba.njit(cache=True, nogil=True)
def short_margin(dim: int) -> float:
    """Return by how much the cosine of two `short_rows` may be below that of the rows.

    Rounding moves a row by at most sqrt(dim) / 2 of its length of 32,767, and a cosine by twice as
    much.
    """
    return (np.sqrt(dim) + 1) / SHORT_LENGTH


@numba.njit(cache=True, nogil=True)
def may_reach(short: np.ndarray, i: np.ndarray, j: np.ndarray, cosine: float) -> np.ndarray:
    """Return which pairs of rows may reach a cosine, by their short forms.

    A fifth of the work of `cosine_pairs`, for candidates most of which fail.

    Parameters
    ----------
    short : int16 array, shape (n, dim)
        From `short_rows`.
    i, j : integer arrays, shape (pairs,)
    cosine : float

    Returns
    -------
    bool array, shape (pairs,)
    """
    passed = np.empty(len(i), np.bool_)
    dim = short.shape[1]
    lowest = (cosine - short_margin(dim)) * SHORT_LENGTH**2
    for pair in range(len(i)):
        x, y = short[i[pair]], short[j[pair]]
        product = np.int32(0)
        for k in range(dim):  # in int32 throughout: sixteen products in one instruction
            product = np.int32(product + np.int32(x[k]) * np.int32(y[k]))
        passed[pair] = product >= lowest
    return passed
