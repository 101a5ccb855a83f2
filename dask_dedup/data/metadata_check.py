"""What the footers, or else the values, say of columns whose types differ.

All of it before the first task: whatever passes here, a task can read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dask_dedup.data.embedding_file import one_line
from dask_dedup.data.metadata_footer import FROM_SPARK, LEAVES, open_metadata
from dask_dedup.data.metadata_leaves import Branch
from dask_dedup.data.metadata_types import PLAIN_TYPES, going_on, leaf_count
from dask_dedup.data.parts import Part
from dask_dedup.errors import ColumnError, UnreadableError

__all__ = ["ColumnStatistics", "choose_int96_unit", "special_of"]

logger = logging.getLogger(__name__)

_THREADS = 16  # footers of thousands of files, mostly waiting
_BATCH_ROWS = 65_536
_RAW = ("TIMESTAMP", "TIME", "DATE")  # as integers: Python's own end with the year 9999


class ColumnStatistics:
    """`dask_dedup.data.metadata_leaves.Statistics` of one column.

    Parameters
    ----------
    names : tuple of str
        In the files, each of which has one of them.
    groups : sequence of sequences of Part
        The parts that have it with one type, in the order of `Branch.group`.
    """

    def __init__(self, names: tuple[str, ...], groups: Sequence[Sequence[Part]]) -> None:
        self._names, self._groups = names, groups
        self._known: dict[tuple, Any] = {}
        self._is_logged = False

    def bounds(self, branch: Branch) -> tuple[int | Decimal, int | Decimal] | None:
        """Return the least and the greatest value; None where all are null."""

        def of_part(part: Part) -> list:
            bounds = _footer_bounds(part, self._names, branch.leaf)
            if bounds is not None:
                return bounds
            self._log_reading()
            found = [_min_max(v) for v in _leaf_values(part, self._names, branch.leaf) if len(v)]
            return [limit for pair in found for limit in pair]

        limits = [limit for own in self._map("bounds", branch, of_part) for limit in own]
        return (min(limits), max(limits)) if limits else None

    def are_null(self, branch: Branch) -> bool:
        """Return whether there is no value but null."""

        def of_part(part: Part) -> bool:
            bounds = _footer_bounds(part, self._names, branch.leaf)
            if bounds is not None:
                return not bounds
            return not any(len(v) for v in _leaf_values(part, self._names, branch.leaf))

        return all(self._map("null", branch, of_part))

    def are_whole(self, branch: Branch, low: int, high: int) -> bool:
        """Return whether all floats are whole numbers from ``low`` to ``high``, without -0."""

        def are_whole(values: pa.Array) -> bool:
            x = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            inside = (x >= float(low)) & (x < float(high + 1))  # NaN is not
            return bool((inside & (x == np.rint(x)) & ~((x == 0) & np.signbit(x))).all())

        return self._all(f"whole {low} {high}", branch, are_whole)

    def divide(self, branch: Branch, factor: int) -> bool:
        """Return whether all times are multiples of ``factor``."""
        return self._all(
            f"divide {factor}",
            branch,
            lambda values: not (values.cast(pa.int64()).to_numpy() % factor).any(),
        )

    def are_text(self, branch: Branch) -> bool:
        """Return whether all bytes are UTF-8."""

        def are_text(values: pa.Array) -> bool:
            try:
                values.cast(pa.large_binary()).cast(pa.large_string())
            except pa.ArrowInvalid:
                return False
            return True

        return self._all("text", branch, are_text)

    def _all(self, what: str, branch: Branch, holds: Callable[[pa.Array], bool]) -> bool:
        def of_part(part: Part) -> bool:
            if _footer_bounds(part, self._names, branch.leaf) == []:
                return True
            self._log_reading()
            return all(holds(v) for v in _leaf_values(part, self._names, branch.leaf))

        return all(self._map(what, branch, of_part))

    def _map(self, what: str, branch: Branch, of_part: Callable[[Part], Any]) -> list:
        key = what, branch.group, branch.leaf
        if key not in self._known:
            with ThreadPoolExecutor(_THREADS) as pool:
                self._known[key] = list(pool.map(of_part, self._groups[branch.group]))
        return self._known[key]

    def _log_reading(self) -> None:
        if not self._is_logged:
            self._is_logged = True
            logger.info(
                "column %r is read before the run: its type differs between parts, and the footers "
                "do not say which type holds its values",
                self._names[0],
            )


def special_of(field: pa.Field) -> dict[int, str]:
    """Return what the leaves of a field are that Arrow's type does not express."""
    return dict(json.loads((field.metadata or {}).get(LEAVES, b"[]")))


def choose_int96_unit(kinds: Sequence[tuple[pa.Schema, Sequence[Part]]]) -> str:
    """Return the unit, ``us`` or ``ns``, that keeps every time that is stored as INT96.

    ``kinds`` are schemas, with the parts that have them.

    Spark's have microseconds. Of others the footers say nothing: they are read.

    Raises
    ------
    ColumnError
        Some are outside the years that nanoseconds reach, and others have nanoseconds.
    """
    found = []
    for schema, parts in kinds:
        leaves = [
            (field.name, leaf)
            for field in schema
            for leaf, what in special_of(field).items()
            if what == "INT96"
        ]
        is_spark = FROM_SPARK in (schema.metadata or {})
        found += [(part, leaves, is_spark) for part in parts if leaves and part.rows]
    others = [(part, leaves) for part, leaves, is_spark in found if not is_spark]
    if not others:
        return "us"
    logger.info(
        "column %r is read before the run: it is stored as INT96, and the footers do not say "
        "whether its times have nanoseconds",
        others[0][1][0][0],
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        fine = _first(pool.map(lambda one: _find(_have_nanoseconds, *one), others))
        if fine is None:
            return "us"
        every = [(part, leaves) for part, leaves, _ in found]
        outside = _first(pool.map(lambda one: _find(_are_outside, *one), every))
    if outside is None:
        return "ns"
    raise ColumnError(
        f"{outside[0]}: column {outside[1]!r}, stored as INT96, has times outside the years 1677 "
        f"to 2262, and {fine[0]}: column {fine[1]!r} has nanoseconds: no unit holds both. "
        f"Write them as timestamps; {going_on(outside[1])}"
    )


def _first(found: Iterator[Any]) -> Any:
    return next((one for one in found if one is not None), None)


def _find(
    is_so: Callable[[np.ndarray, np.ndarray], np.ndarray],
    part: Part,
    leaves: Sequence[tuple[str, int]],
) -> tuple[str, str] | None:
    """Return file and column of the first time in INT96 of which something is so."""
    for name, leaf in leaves:
        units = [_leaf_values(part, (name,), leaf, unit) for unit in ("us", "ns")]
        for both in zip(*units, strict=True):
            coarse, fine = (values.cast(pa.int64()).to_numpy() for values in both)
            if is_so(coarse, fine).any():
                return part.metadata_path, name
    return None


def _have_nanoseconds(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    return coarse * 1000 != fine  # both wrap beyond 64 bits, in the same way


def _are_outside(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    return np.abs(coarse) >= 2**63 // 1000


def _footer_bounds(part: Part, names: tuple[str, ...], leaf: int) -> list | None:
    """Return the limits that the footer has of a leaf: none of nulls, None if it has none."""
    limits = []
    with _opened(part) as file:
        index = _first_leaf(file, _name_in(file, names)) + leaf
        for i in range(file.metadata.num_row_groups):
            column = file.metadata.row_group(i).column(index)
            statistics = column.statistics
            if statistics is None:
                if column.num_values:
                    return None
            elif statistics.has_min_max:
                is_raw = pq.ParquetSchema(file.metadata).column(index).logical_type.type in _RAW
                limits += (
                    [statistics.min_raw, statistics.max_raw]
                    if is_raw
                    else [statistics.min, statistics.max]
                )
            elif not statistics.has_null_count or statistics.null_count < column.num_values:
                return None
    return limits


def _leaf_values(
    part: Part, names: tuple[str, ...], leaf: int, int96_unit: str = "us"
) -> Iterator[pa.Array]:
    """Read a leaf of a column in pieces, without nulls."""
    with _opened(part, int96_unit) as file:
        name = _name_in(file, names)
        columns = None if "." in name else [name]  # parquet would take it for a path
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
            yield _leaf_of(batch.column(name), leaf)


@contextmanager
def _opened(part: Part, int96_unit: str = "us") -> Iterator[pq.ParquetFile]:
    path = part.metadata_path
    try:
        with open_metadata(path, int96_unit) as file:
            yield file
    except (OSError, ValueError, KeyError, StopIteration, pa.ArrowException) as error:
        message = f"{path}: cannot be read ({one_line(error)})."
        raise UnreadableError(message, path) from error


def _name_in(file: pq.ParquetFile, names: tuple[str, ...]) -> str:
    return next(name for name in names if name in file.schema_arrow.names)


def _first_leaf(file: pq.ParquetFile, name: str) -> int:
    schema = file.schema_arrow
    return sum(leaf_count(field.type) for field in list(schema)[: schema.get_field_index(name)])


def _leaf_of(array: pa.Array, leaf: int) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_nested(array.type):
        return array.cast(PLAIN_TYPES.get(array.type, array.type)).drop_null()
    if pa.types.is_struct(array.type):
        children = array.flatten()  # null where the struct is
    elif pa.types.is_map(array.type):
        children = [array.keys, array.items]
    else:
        children = [array.flatten()]
    for child in children:
        count = leaf_count(child.type)
        if leaf < count:
            return _leaf_of(child, leaf)
        leaf -= count
    raise AssertionError(f"{array.type} has fewer leaves than its type says")


def _min_max(values: pa.Array) -> list:
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.int64())
    limits = pc.min_max(values).as_py()
    return [limits["min"], limits["max"]]
