"""All pairs of projections within a radius, exactly: one product of small integers and one scan.

Projections are int8 codes (`PcaModel.to_codes`), so |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is an
integer whatever computes the product: int8 where that is quicker (four times the rate of float32
with AVX-512 VNNI), else float32, in which sums of up to 1,040 products of codes (2^24 / 127^2) are
exact, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from time import perf_counter
from typing import NamedTuple

import numba
import numpy as np
import torch

__all__ = [
    "PRODUCT",
    "CodeRows",
    "code_product",
    "code_rows",
    "near_pairs",
    "scan_product",
    "within_code_distance",
]

PRODUCT = (256, 4096)  # rows and columns of one matrix product: 4 MB, little below the diagonal

_CPU = torch.device("cpu")
_DEVICE_PRODUCT = (8192, 32_768)  # 1 GB, and a quarter of it for what is near
_SCANNED = 64  # columns of a row with hits that are looked at together
_TRIALS = 10  # of each way to multiply, a tenth of a millisecond each; the quickest counts
_NEAR_TO_NONE = 1 << 28  # as a squared length: near to nothing


class CodeRows(NamedTuple):
    """Rows of int8 codes.

    Attributes
    ----------
    codes : int8 tensor, shape (n, width)
        At most 127 from 0.
    squares : int32 array, shape (n,)
        Squared lengths; beyond all others for a row that is to be near to nothing.
    """

    codes: torch.Tensor
    squares: np.ndarray

    def take(self, rows: np.ndarray) -> CodeRows:
        """Return some of the rows: int64 positions."""
        return CodeRows(self.codes.index_select(0, torch.from_numpy(rows)), self.squares[rows])

    def head(self, rows: int) -> CodeRows:
        """Return the first rows, without a copy."""
        return CodeRows(self.codes[:rows], self.squares[:rows])

    def tail(self, rows: int) -> CodeRows:
        """Return the last rows, without a copy."""
        return CodeRows(
            self.codes[len(self.codes) - rows :], self.squares[len(self.squares) - rows :]
        )


def code_rows(codes: np.ndarray, usable: np.ndarray | None = None) -> CodeRows:
    """Return rows with their squared lengths.

    Parameters
    ----------
    codes : int8 array, shape (n, width)
    usable : bool array, shape (n,), optional
        Rows that may be near to anything.
    """
    squares = _squares(codes)
    if usable is not None:
        squares[~usable] = _NEAR_TO_NONE
    return CodeRows(torch.from_numpy(codes), squares)


def near_pairs(
    left: CodeRows,
    right: CodeRows,
    limit: int,
    upper: bool,
    device: torch.device = _CPU,
    product: tuple[int, int] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of rows that are near, block by block.

    Parameters
    ----------
    left, right : CodeRows
        n and m rows.
    limit : int
        Squared distance of codes that a pair may have: see `PcaModel.largest_code_distance`.
    upper : bool
        Both are of the same rows: pairs i < j only.
    device : torch.device
        Where the products run: other devices than the CPU take larger ones, and return only
        the pairs.
    product : (int, int), optional
        Rows and columns of one product; by default those that suit the device.

    Yields
    ------
    i, j : int64 arrays, shape (pairs,)
        Rows of ``left`` and of ``right``.
    """
    if device.type != "cpu":
        yield from _near_pairs_on_device(
            left, right, limit, upper, device, product or _DEVICE_PRODUCT
        )
        return
    height, width = product or PRODUCT
    for a in range(0, len(left.codes), height):
        some, squares = left.codes[a : a + height], left.squares[a : a + height]
        # Columns up to a row's own are below the diagonal: compared already.
        for b in range(a if upper else 0, len(right.codes), width):
            products = code_product(some, right.codes[b : b + width])
            others = right.squares[b : b + width]
            first = a + 1 - b if upper else 0
            i, j = scan_product(products, squares, others, limit, first, int(upper))
            if len(i):
                yield a + i, b + j


def code_product(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Return the products of two blocks of codes: int32, shape (rows, columns).

    Their width is a multiple of 4 (of 1, `torch._int_mm` 2.13 makes garbage).
    """
    return (_product_of_int8 if _int8_is_quicker() else _product_of_floats)(left, right)


def _product_of_int8(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    return torch._int_mm(left, right.T).numpy()


def _product_of_floats(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    return torch.mm(left.float(), right.float().T).to(torch.int32).numpy()


def _near_pairs_on_device(
    left: CodeRows,
    right: CodeRows,
    limit: int,
    upper: bool,
    device: torch.device,
    product: tuple[int, int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    height, width = product
    rows, turned = left.codes.to(device).float(), right.codes.to(device).float().T
    least = torch.from_numpy(left.squares - np.int32(limit)).to(device)[:, None]
    squares = torch.from_numpy(right.squares).to(device)
    for a in range(0, len(rows), height):
        for b in range(a if upper else 0, turned.shape[1], width):
            products = torch.mm(rows[a : a + height], turned[:, b : b + width]).int()
            near = products.mul_(2).sub_(squares[b : b + width]) >= least[a : a + height]
            if upper:
                near.triu_(a + 1 - b)
            i, j = (side.cpu().numpy() for side in near.nonzero(as_tuple=True))
            if len(i):
                yield a + i, b + j


@cache
def _int8_is_quicker() -> bool:
    """Measure whether products of int8 are exact here, and quicker than those of float32.

    Processors without instructions for them may sum pairs of products in 16 bits, which is neither.
    """
    left = torch.full((128, 68), -127, dtype=torch.int8)
    right = torch.full((1024, 68), -127, dtype=torch.int8)
    right[::2] = 127
    wide_left, wide_right = left.float(), right.float()
    try:
        exact = torch.equal(
            torch._int_mm(left, right.T), torch.mm(wide_left, wide_right.T).to(torch.int32)
        )
    except (RuntimeError, AttributeError):
        return False
    quick, slow = (
        min(_seconds_of(product, *sides) for _ in range(_TRIALS))
        for product, sides in (
            (torch._int_mm, (left, right.T)),
            (torch.mm, (wide_left, wide_right.T)),
        )
    )
    return exact and quick < slow


def _seconds_of(product: Callable, left: torch.Tensor, right: torch.Tensor) -> float:
    began = perf_counter()
    product(left, right)
    return perf_counter() - began


@numba.njit(cache=True, nogil=True)
def _squares(codes: np.ndarray) -> np.ndarray:
    squares = np.empty(len(codes), np.int32)
    for i in range(len(codes)):
        square = np.int32(0)
        for k in range(codes.shape[1]):
            square += np.int32(codes[i, k]) * np.int32(codes[i, k])
        squares[i] = square
    return squares


@numba.njit(cache=True, nogil=True)
def within_code_distance(codes: np.ndarray, i: np.ndarray, j: np.ndarray, limit: int) -> np.ndarray:
    """Return which pairs of rows are near.

    Parameters
    ----------
    codes : int8 array, shape (n, width)
    i, j : integer arrays, shape (pairs,)
    limit : int
        Squared distance of codes.

    Returns
    -------
    bool array, shape (pairs,)
    """
    near = np.empty(len(i), np.bool_)
    for pair in range(len(i)):
        one, other = codes[i[pair]], codes[j[pair]]
        square = np.int32(0)
        for k in range(codes.shape[1]):
            step = np.int32(one[k]) - np.int32(other[k])
            square += step * step
        near[pair] = square <= limit
    return near


@numba.njit(cache=True, nogil=True)
def scan_product(
    product: np.ndarray,
    left_squares: np.ndarray,
    right_squares: np.ndarray,
    limit: int,
    first: int,
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs within the limit: |x|^2 + |y|^2 - 2 x.y <= limit.

    Parameters
    ----------
    product : int32 array, shape (rows, columns)
        x.y in C order.
    left_squares, right_squares : int32 arrays, shapes (rows,) and (columns,)
    limit : int
    first, step : int
        Row i is looked at from column ``first + i * step`` on.

    Returns
    -------
    i, j : int64 arrays, shape (hits,)
        Row and column of each pair, in order.
    """
    rows, columns = product.shape
    found_i, found_j = np.empty(columns, np.int64), np.empty(columns, np.int64)
    at = 0
    for i in range(rows):
        start = max(0, min(first + i * step, columns))
        # Slices: an index that might be negative forbids vector code.
        values, squares = product[i, start:], right_squares[start:]
        least = np.int32(left_squares[i] - limit)
        if _largest_gap(values, squares) < least:
            continue
        if at + columns > len(found_i):
            found_i = _longer(found_i, at + columns)
            found_j = _longer(found_j, at + columns)
        for some in range(0, len(values), _SCANNED):
            part, lengths = values[some : some + _SCANNED], squares[some : some + _SCANNED]
            if _largest_gap(part, lengths) >= least:
                for j in range(len(part)):  # written every time, kept where it is near
                    found_i[at], found_j[at] = i, start + some + j
                    at += 2 * part[j] - lengths[j] >= least
    return found_i[:at].copy(), found_j[:at].copy()


@numba.njit(cache=True, nogil=True)
def _largest_gap(values: np.ndarray, squares: np.ndarray) -> np.int32:
    """Return the largest 2 x.y - |y|^2: int32."""
    largest = np.int32(-(1 << 31))
    for j in range(len(values)):
        largest = max(largest, np.int32(np.int32(2 * values[j]) - squares[j]))
    return largest


@numba.njit(cache=True, nogil=True)
def _longer(values: np.ndarray, least: int) -> np.ndarray:
    longer = np.empty(2 * least, values.dtype)
    longer[: len(values)] = values
    return longer
