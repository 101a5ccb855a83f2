"""Merged columns: what dropped copies knew, beside the row that stays for them.

A column ``caption`` gives a new column ``caption_merged``, behind the user's; null of rows that are
dropped. Its value is made of the row that stays and of those whose witness it is, in the order of
``row_id`` after its own:

- ``distinct``: the list of distinct values;
- ``union``: of a list column, the list of distinct elements;
- ``max``, ``min``, ``sum`` (whole numbers with 64 bits), ``any`` (of booleans);
- ``first``: the first value.

Nulls, and NaN, count as no value; without any, ``distinct`` and ``union`` are the empty list, the
others null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.data.metadata import MetadataColumns, as_plain, take_rows
from dask_dedup.errors import SettingsError
from dask_dedup.schema import RESERVED_COLUMNS

__all__ = [
    "SUFFIX",
    "MergeColumn",
    "check_merge",
    "merge_part",
    "merge_values",
    "plain_values",
]

SUFFIX = "_merged"


class MergeColumn(NamedTuple):
    """A column that is merged: its name, and its way."""

    name: str
    way: str

    @property
    def merged_name(self) -> str:
        """The name of the new column."""
        return f"{self.name}{SUFFIX}"


def check_merge(merge: Mapping[str, str], columns: MetadataColumns) -> tuple[MergeColumn, ...]:
    """Return the columns that are merged, by the names that the data set gives them.

    Raises
    ------
    SettingsError
        There is no such column, its type does not fit, or the new name is taken.
    """
    known = {
        source: field.name
        for field, sources in zip(columns.schema, columns.sources, strict=True)
        for source in sources
    } | {name: name for name in columns.schema.names}
    found: list[MergeColumn] = []
    for name, way in merge.items():
        if name not in known:
            raise SettingsError(
                f"keep.merge: there is no column {name!r}; there are "
                f"{', '.join(columns.schema.names)}."
            )
        one = MergeColumn(known[name], way)
        if one.merged_name in {*columns.schema.names, *RESERVED_COLUMNS}:
            raise SettingsError(
                f"keep.merge: the data set has a column {one.merged_name!r} already, which would "
                f"be the new one's name. Leave it out with --drop-columns."
            )
        if one.name in {other.name for other in found}:
            raise SettingsError(f"keep.merge: column {one.name!r} stands there twice.")
        own = columns.schema.field(one.name)
        kind = as_plain(pa.table({own.name: pa.nulls(0, own.type)}))[own.name].type
        expected = _misfit(way, kind)
        if expected:
            raise SettingsError(
                f"keep.merge: {way} is for {expected}, and column {name!r} is {kind}."
            )
        found.append(one)
    return tuple(found)


def _misfit(way: str, kind: pa.DataType) -> str | None:
    """Return what a way expects, where a type is not that."""
    types = pa.types
    is_number = types.is_integer(kind) or types.is_floating(kind)
    is_time = types.is_temporal(kind) and not types.is_interval(kind)
    is_text = types.is_string(kind) or types.is_large_string(kind)
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind)
    is_plain = is_number or is_time or is_text or types.is_boolean(kind) or types.is_decimal(kind)
    if way == "distinct":
        return None if is_plain or is_bytes else "text, numbers, times, booleans and bytes"
    if way == "union":
        is_list = types.is_list(kind) or types.is_large_list(kind)
        inner = is_list and _misfit("distinct", kind.value_type) is None
        return None if inner else "lists of text, numbers, times or booleans"
    if way in ("max", "min"):
        fits = is_number or is_time or is_text or types.is_decimal(kind)
        return None if fits else "text, numbers and times"
    if way == "sum":
        return None if is_number else "numbers"
    if way == "any":
        return None if types.is_boolean(kind) else "booleans"
    return None


def plain_values(table: pa.Table, merge: Sequence[MergeColumn]) -> pa.Table:
    """Return the columns that are merged, in types that all of Arrow's functions know."""
    plain = as_plain(table.select([one.name for one in merge]))
    arrays = []
    for column in plain.columns:
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        arrays.append(column)
    return pa.table(arrays, names=plain.column_names)


def merge_values(
    values: pa.Table, owners: np.ndarray, owner_count: int, merge: Sequence[MergeColumn]
) -> pa.Table:
    """Merge the values of rows.

    Parameters
    ----------
    values : pyarrow.Table
        From `plain_values`: first those of each owner, then the others' in the order of ``row_id``.
    owners : int64 array, shape (rows,)
        The owner that each row's values go to, from 0.
    owner_count : int
    merge : sequence of MergeColumn

    Returns
    -------
    pyarrow.Table
        A row for each owner: the merged columns.
    """
    arrays = [_merged(values[one.name], owners, owner_count, one.way) for one in merge]
    return pa.table(arrays, names=[one.merged_name for one in merge])


def merge_part(
    metadata: pa.Table,
    is_kept: np.ndarray,
    row_start: int,
    carried: pa.Table | None,
    merge: Sequence[MergeColumn],
) -> pa.Table:
    """Return the merged columns of one part.

    Parameters
    ----------
    metadata : pyarrow.Table
        Of the part.
    is_kept : bool array
        Of its rows.
    row_start : int
        ``row_id`` of the first.
    carried : pyarrow.Table, optional
        ``owner``, ``row_id`` and the values of rows that are dropped for rows of this part.
    merge : sequence of MergeColumn
    """
    kept = np.flatnonzero(is_kept)
    place = np.full(len(is_kept), -1)
    place[kept] = np.arange(len(kept))
    own = plain_values(metadata, merge)
    values, owners = own.take(pa.array(kept)), np.arange(len(kept))
    if carried is not None and carried.num_rows:
        order = np.argsort(carried["row_id"].to_numpy())
        carried = carried.take(pa.array(order))
        owners = np.append(owners, place[carried["owner"].to_numpy() - row_start])
        theirs = pa.Table.from_arrays(carried.columns[2:], names=own.column_names)
        values = pa.concat_tables([values, theirs.cast(values.schema)])
    merged = merge_values(values, owners, len(kept), merge)
    return merged.take(pa.array(place, mask=place < 0))


def _merged(column: pa.ChunkedArray, owners: np.ndarray, count: int, way: str) -> pa.Array:
    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if way == "union":
        lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        owners, values = np.repeat(owners, lengths), values.flatten()
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    there = np.flatnonzero(np.asarray(pc.is_valid(values)))
    owners = owners[there]
    if way in ("distinct", "union"):
        return _distinct(values, there, owners, count)
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    if way == "first":
        place = np.full(count, -1)
        place[owners[order[starts]]] = there[order[starts]]
        taken = take_rows(pa.table({"v": values}), pa.array(place, mask=place < 0))
        return taken["v"].combine_chunks()
    if pa.types.is_integer(values.type) and way == "sum":
        values = values.cast(pa.int64() if pa.types.is_signed_integer(values.type) else pa.uint64())
    if way == "any":
        values, name = values.cast(pa.uint8()), "max"
    else:
        name = way
    rows = pa.table({"owner": owners[order], "v": values.take(pa.array(there[order]))})
    grouped = rows.group_by("owner", use_threads=False).aggregate([("v", name)])
    place = np.full(count, -1)
    place[grouped["owner"].to_numpy()] = np.arange(grouped.num_rows)
    found = grouped[f"v_{name}"].combine_chunks().take(pa.array(place, mask=place < 0))
    return found.cast(pa.bool_()) if way == "any" else found


def _distinct(values: pa.Array, there: np.ndarray, owners: np.ndarray, count: int) -> pa.Array:
    """Return a list of distinct values for each owner, in the order in which they came."""
    encoded = values.take(pa.array(there)).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((np.arange(len(codes)), codes, owners))
    pairs = np.stack([owners[order], codes[order]])
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (np.diff(pairs, axis=1) != 0).any(axis=0)
    first = np.sort(order[is_new])  # in the order in which they came
    first = first[np.argsort(owners[first], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners[first], minlength=count))])
    items = encoded.dictionary.take(pa.array(codes[first]))
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), items)
