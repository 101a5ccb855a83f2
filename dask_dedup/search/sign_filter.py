"""All pairs of images within a radius: one matrix product and one scan of its signs.

With a = [x, -|x|^2/2, 1] and b = [y, 1, (r^2 - |y|^2)/2] the product a.b is at least 0 exactly
where |x - y| <= r.

The product costs in proportion to the coordinates. Half of them and the length of the others do for
a first filter, as that never lengthens a distance either; what passes is looked at again with all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import torch

__all__ = [
    "PRODUCT",
    "factors",
    "near_pairs",
    "near_products",
    "within",
]

PRODUCT = (128, 4096)  # rows and columns of one matrix product: 2 MB, little below the diagonal

_CPU = torch.device("cpu")
_DEVICE_PRODUCT = (8192, 32_768)  # 1 GB, and a quarter of it for the signs
_SCANNED = 64  # signs of a row with hits that are looked at together
_FAR = 1e30  # as half a squared length: makes every product negative


def factors(
    image: torch.Tensor, radius: float, usable: np.ndarray | None = None, short: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return [x, -|x|^2/2, 1] and [x, 1, (r^2 - |x|^2)/2] for each row x.

    Parameters
    ----------
    image : float32 tensor, shape (n, width)
    radius : float
    usable : bool array, shape (n,), optional
        Rows that may be near to anything; the others are near to nothing.
    short : bool
        Take the first half of the coordinates of x, and the length of the others.

    Returns
    -------
    left, right : float32 tensors, shape (n, width + 2); if short, (n, width // 2 + 3)
    """
    width = image.shape[1]
    taken = width // 2 if short else width
    depth = taken + 2 + int(taken < width)
    left, right = (
        np.empty((len(image), depth), np.float32),
        np.empty((len(image), depth), np.float32),
    )
    usable = np.ones(len(image), np.bool_) if usable is None else usable
    _fill_factors(image.numpy(), taken, np.float32(radius**2 / 2), usable, left, right)
    return torch.from_numpy(left), torch.from_numpy(right)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _fill_factors(image, taken, half_radius, usable, left, right):
    for i in range(image.shape[0]):
        first, rest = np.float32(0), np.float32(0)
        for k in range(taken):
            value = image[i, k]
            left[i, k] = value
            right[i, k] = value
            first += value * value
        for k in range(taken, image.shape[1]):
            rest += image[i, k] * image[i, k]
        if taken < image.shape[1]:
            left[i, taken] = right[i, taken] = np.sqrt(rest)
        half_square = (first + rest) / np.float32(2) if usable[i] else np.float32(_FAR)
        left[i, -2], left[i, -1] = -half_square, 1
        right[i, -2], right[i, -1] = 1, half_radius - half_square


def near_products(
    left: torch.Tensor,
    right: torch.Tensor,
    upper: bool,
    device: torch.device = _CPU,
    block: tuple[int, int] = PRODUCT,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of rows whose product is at least 0, block by block.

    Parameters
    ----------
    left, right : float32 or bfloat16 tensors, shapes (n, width) and (m, width)
        Factors.
    upper : bool
        Both are of the same rows: pairs i < j only.
    device : torch.device
        Where the products run: in larger ones on another than the CPU, from where only the hits
        come back.
    block : tuple of int
        Rows and columns of one product.

    Yields
    ------
    i, j : int64 arrays, shape (hits,)
        Rows of ``left`` and of ``right``.
    """
    if not len(left):
        return
    if device.type != "cpu":
        yield from _near_products_there(left, right, upper, device)
        return
    height, width = block
    turned = right.T
    for a, some in zip(range(0, len(left), height), left.split(height), strict=True):
        # Columns up to a row's own are below the diagonal: compared already.
        for b in range(a if upper else 0, len(right), width):
            product = torch.mm(some, turned.narrow(1, b, min(width, len(right) - b)))
            i, j = near_pairs(product, a + 1 - b if upper else 0, int(upper))
            if len(i):
                yield a + i, b + j


def _near_products_there(
    left: torch.Tensor, right: torch.Tensor, upper: bool, device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    height, width = _DEVICE_PRODUCT
    left, turned = left.to(device), right.to(device).T
    for a in range(0, len(left), height):
        block = left[a : a + height]
        for b in range(a if upper else 0, turned.shape[1], width):
            near = torch.mm(block, turned[:, b : b + width]) >= 0
            if upper:
                near.triu_(a + 1 - b)
            i, j = (side.cpu().numpy() for side in near.nonzero(as_tuple=True))
            if len(i):
                yield a + i, b + j


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def within(x, y, i, j, radius):
    """Return which pairs of rows are at most ``radius`` apart.

    Parameters
    ----------
    x, y : float32 arrays, shapes (n, width) and (m, width)
    i, j : integer arrays, shape (pairs,)
        Rows of ``x`` and of ``y``.
    radius : float

    Returns
    -------
    bool array, shape (pairs,)
    """
    near = np.empty(len(i), np.bool_)
    for pair in range(len(i)):
        one, other = x[i[pair]], y[j[pair]]
        square = np.float32(0)
        for k in range(x.shape[1]):
            step = one[k] - other[k]
            square += step * step
        near[pair] = square <= radius * radius
    return near


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
