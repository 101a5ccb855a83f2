"""Where the products of rows are at least 0: blocks of products, and one scan of their signs."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import torch

__all__ = ["near_pairs", "near_products"]

_CPU = torch.device("cpu")
_DEVICE_BLOCK = 16_384  # 1 GB, and a quarter of it for the signs
_SCANNED = 64  # signs of a row with hits that are looked at together


def near_products(
    left: torch.Tensor,
    right: torch.Tensor,
    upper: bool,
    device: torch.device = _CPU,
    block: int = 512,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of rows whose product is at least 0, block by block.

    Parameters
    ----------
    left, right : float32 or bfloat16 tensors, shapes (n, width) and (m, width)
    upper : bool
        Both are of the same rows: pairs i < j only.
    device : torch.device
        Where the products run: in larger ones on another than the CPU, from where only the hits
        come back.
    block : int
        Rows and columns of one product.

    Yields
    ------
    i, j : int64 arrays, shape (hits,)
        Rows of ``left`` and of ``right``.
    """
    if device.type != "cpu":
        yield from _near_products_there(left, right, upper, device)
        return
    turned = right.T
    for a in range(0, len(left), block):
        some = left[a : a + block]
        # Columns up to a row's own are below the diagonal: compared already.
        for b in range(a if upper else 0, len(right), block):
            product = torch.mm(some, turned[:, b : b + block])
            i, j = near_pairs(product, a + 1 - b if upper else 0, int(upper))
            if len(i):
                yield a + i, b + j


def _near_products_there(
    left: torch.Tensor, right: torch.Tensor, upper: bool, device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    left, turned = left.to(device), right.to(device).T
    for a in range(0, len(left), _DEVICE_BLOCK):
        some = left[a : a + _DEVICE_BLOCK]
        for b in range(a if upper else 0, turned.shape[1], _DEVICE_BLOCK):
            near = torch.mm(some, turned[:, b : b + _DEVICE_BLOCK]) >= 0
            if upper:
                near.triu_(a + 1 - b)
            i, j = (side.cpu().numpy() for side in near.nonzero(as_tuple=True))
            if len(i):
                yield a + i, b + j


def near_pairs(product: torch.Tensor, first: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Find where a product is at least 0.

    Parameters
    ----------
    product : float32 or bfloat16 tensor, shape (rows, columns), C order
    first, step : int
        Row i is looked at from column ``first + i * step`` on.

    Returns
    -------
    i, j : int64 arrays, shape (hits,)
        Row and column of each hit, in order.
    """
    # Integers: the compiler turns the loops into vector code.
    integers = torch.int32 if product.dtype == torch.float32 else torch.int16
    return _scan_signs(product.view(integers).numpy(), first, step)


@numba.njit(cache=True, nogil=True)
def _scan_signs(signs, first, step):
    rows, columns = signs.shape
    count = np.zeros(rows, np.int64)
    total = 0
    for i in range(rows):
        start = max(0, min(first + i * step, columns))
        row = signs[i, start:]  # a slice: an index that might be negative forbids vector code
        every = np.int32(-1)
        for j in range(len(row)):
            every &= row[j]
        if every >= 0:  # some sign bit is clear
            hits = 0
            for j in range(len(row)):
                hits += row[j] >= 0
            count[i] = hits
            total += hits
    found_i, found_j = np.empty(total, np.int64), np.empty(total + 1, np.int64)
    at = 0
    for i in range(rows):
        if count[i]:
            found_i[at : at + count[i]] = i
            start = max(0, min(first + i * step, columns))
            for first_of_some in range(start, columns, _SCANNED):
                some = signs[i, first_of_some : first_of_some + _SCANNED]
                every = np.int32(-1)
                for j in range(len(some)):
                    every &= some[j]
                if every >= 0:
                    for j in range(len(some)):  # written every time, kept where it is a hit
                        found_j[at] = first_of_some + j
                        at += some[j] >= 0
    return found_i, found_j[:total]
