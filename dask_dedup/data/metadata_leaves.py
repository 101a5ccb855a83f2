"""One type for flat columns of several types: numbers, times, text, bytes.

Where types alone do not suffice, `Statistics` of the values decide: of footers, or of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

import pyarrow as pa

__all__ = [
    "Branch",
    "Clash",
    "Statistics",
    "merge_bytes",
    "merge_durations",
    "merge_numbers",
    "merge_times_of_day",
    "merge_timestamps",
]

_MANTISSA: dict[int, int] = {
    16: 11,
    32: 24,
    64: 53,
}  # bits of whole numbers that a float holds exactly
_EXACT_DOUBLES = 2**53
_UNITS = ["s", "ms", "us", "ns"]  # each a thousand of the next
_UTC_NAMES = {"UTC", "Etc/UTC", "Etc/UCT", "UCT", "Etc/Zulu", "Zulu", "Z", "+00:00", "-00:00"}


class Branch(NamedTuple):
    """A column, or what is inside a nested one, in the parts that have it with one type.

    Attributes
    ----------
    field : pyarrow.Field
    group : int
        Which of the column's types this belongs to.
    leaf : int
        Which of the column's leaves, as parquet counts them, is the first below.
    """

    field: pa.Field
    group: int
    leaf: int

    @property
    def type(self) -> pa.DataType:
        """Its type."""
        return self.field.type


class Statistics(Protocol):
    """What is known of the values of a leaf."""

    def bounds(self, branch: Branch) -> tuple[int | Decimal, int | Decimal] | None:
        """Return the least and the greatest value, times as integers; None where all are null."""

    def are_null(self, branch: Branch) -> bool:
        """Return whether there is no value but null."""

    def are_whole(self, branch: Branch, low: int, high: int) -> bool:
        """Return whether all floats are whole numbers from ``low`` to ``high``, without -0."""

    def divide(self, branch: Branch, factor: int) -> bool:
        """Return whether all times are multiples of ``factor``."""


class Clash(Exception):  # noqa: N818 - not for callers: becomes a ColumnError
    """Two branches that no type holds, and why."""

    def __init__(self, first: Branch, second: Branch, reason: str) -> None:
        super().__init__(reason)
        self.first, self.second, self.reason = first, second, reason


# --- numbers --------------------------------------------------------------------------------------


def merge_numbers(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    """Return a type for integers, floats and decimals."""
    floats = [branch for branch in branches if pa.types.is_floating(branch.type)]
    exact = [branch for branch in branches if not pa.types.is_floating(branch.type)]
    if not floats:
        return _merge_exact(exact, statistics)
    widest = max(branch.type.bit_width for branch in floats)
    if not exact:
        return _float_of(widest)
    if all(pa.types.is_integer(branch.type) for branch in exact):
        bits = max(branch.type.bit_width for branch in exact)
        wide = [w for w, mantissa in _MANTISSA.items() if w >= widest and mantissa >= bits]
        if wide:
            return _float_of(min(wide))
    if all(getattr(branch.type, "scale", 0) == 0 for branch in exact):
        limits = [limit for branch in exact for limit in statistics.bounds(branch) or ()]
        if all(-_EXACT_DOUBLES <= limit <= _EXACT_DOUBLES for limit in limits):
            return pa.float64()
    common = _merge_exact(exact, statistics)
    low, high = _limits_of(common)
    for branch in floats:
        if not statistics.are_whole(branch, low, high):
            raise Clash(
                exact[0],
                branch,
                f"values of the one are not exact as {_float_of(64)}, and values of the other are "
                f"no whole numbers",
            )
    return common


def _merge_exact(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    types = [branch.type for branch in branches]
    if all(map(pa.types.is_integer, types)):
        return _merge_integers(branches, statistics)
    scale = max(getattr(arrow_type, "scale", 0) for arrow_type in types)
    precision = scale + max(map(_whole_digits, types))
    for make, most in ((pa.decimal128, 38), (pa.decimal256, 76)):
        if precision <= most:
            return make(precision, scale)
    raise Clash(branches[0], branches[-1], f"{precision} digits are more than a decimal has")


def _merge_integers(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    signed = [b for b in branches if pa.types.is_signed_integer(b.type)]
    unsigned = [b for b in branches if not pa.types.is_signed_integer(b.type)]
    own, others = (max((b.type.bit_width for b in s), default=0) for s in (signed, unsigned))
    if not signed or not unsigned:
        return _integer_of("uint" if unsigned else "int", max(own, others))
    if others < 64:
        return _integer_of("int", max(own, 2 * others))
    lows = [bounds[0] for b in signed if (bounds := statistics.bounds(b)) is not None]
    if min(lows, default=0) >= 0:
        return pa.uint64()
    highs = [bounds[1] for b in unsigned if (bounds := statistics.bounds(b)) is not None]
    if max(highs, default=0) < 2**63:
        return pa.int64()
    raise Clash(
        signed[0], unsigned[0], f"{min(lows)} in the one and {max(highs)} in the other fit no type"
    )


def _whole_digits(arrow_type: pa.DataType) -> int:
    if pa.types.is_decimal(arrow_type):
        return arrow_type.precision - arrow_type.scale
    return len(str(max(map(abs, _limits_of(arrow_type)))))


def _limits_of(arrow_type: pa.DataType) -> tuple[int, int]:
    if pa.types.is_decimal(arrow_type):  # casts of greater floats to decimals may round
        most = min(_EXACT_DOUBLES, 10 ** max(0, arrow_type.precision - arrow_type.scale) - 1)
        return -most, most
    bits = arrow_type.bit_width
    if pa.types.is_signed_integer(arrow_type):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _float_of(bits: int) -> pa.DataType:
    return {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}[bits]


def _integer_of(kind: str, bits: int) -> pa.DataType:
    return pa.type_for_alias(f"{kind}{bits}")


# --- times, bytes ---------------------------------------------------------------------------


def merge_timestamps(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    """Return a type for points in time; names of UTC are one zone."""
    zones = ["UTC" if b.type.tz in _UTC_NAMES else b.type.tz for b in branches]
    for branch, zone in zip(branches, zones, strict=True):
        if zone != zones[0]:
            raise Clash(branches[0], branch, "their time zones differ")
    return pa.timestamp(_common_unit(branches, statistics), zones[0])


def merge_durations(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    """Return a type for spans of time."""
    return pa.duration(_common_unit(branches, statistics))


def merge_times_of_day(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    """Return a type for times of a day: in the finest unit, which holds a day in any case."""
    unit = max((branch.type.unit for branch in branches), key=_UNITS.index)
    return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)


def _common_unit(branches: Sequence[Branch], statistics: Statistics) -> str:
    """Return the finest unit in which all times fit into 64 bits, if nothing is lost in it."""
    units = [_UNITS.index(branch.type.unit) for branch in branches]
    for unit in range(max(units), min(units) - 1, -1):
        if all(
            _fits(statistics.bounds(branch), 1000 ** (unit - own))
            if own < unit
            else own == unit or statistics.divide(branch, 1000 ** (own - unit))
            for branch, own in zip(branches, units, strict=True)
        ):
            return _UNITS[unit]
    coarse, fine = branches[units.index(min(units))], branches[units.index(max(units))]
    raise Clash(
        coarse, fine, "no unit has both the range of the one and the fractions of the other"
    )


def _fits(bounds: tuple[int | Decimal, int | Decimal] | None, factor: int) -> bool:
    return bounds is None or (bounds[0] * factor > -(2**63) and bounds[1] * factor < 2**63)


def merge_bytes(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    """Return a type for bytes of fixed and of varying length."""
    large = any(pa.types.is_large_binary(branch.type) for branch in branches)
    return pa.large_binary() if large else pa.binary()
