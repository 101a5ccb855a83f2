"""Two rows of any type: to see before a run what pyarrow can convert, and write so that it returns.

Empty arrays do not do: what pyarrow lacks shows inside nested types with rows only.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.data.metadata_footer import plain_field
from dask_dedup.data.metadata_types import map_field, without_view

__all__ = ["can_cast", "written_field"]

_ROWS = 2


def can_cast(own: pa.DataType, common: pa.DataType) -> bool:
    """Return whether pyarrow converts one type to the other, where the values allow it."""
    try:
        return own == common or _sample_of(own).cast(common).type == common
    except pa.ArrowException:
        return False


def written_field(field: pa.Field) -> pa.Field | None:
    """Return a field as it can be written: pyarrow cannot cut all views, which are plain then.

    None where it would not come back from parquet with its type.
    """
    for candidate in (field, map_field(field, without_view)):
        if _comes_back(candidate):
            return candidate
    return None


def _comes_back(field: pa.Field) -> bool:
    memory = io.BytesIO()
    try:
        schema = pa.schema([field.with_nullable(True)])
        table = pa.Table.from_arrays([_sample_of(field.type)], schema=schema)
        pq.write_table(table, memory, row_group_size=1)  # cut as long tables are
        memory.seek(0)
        return plain_field(pq.read_schema(memory).field(0)).type == field.type
    except pa.ArrowException:
        return False


def _sample_of(kind: pa.DataType) -> pa.Array:
    """Return two rows, without nulls where the type allows that."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _sample_of(kind.storage_type))
    if pa.types.is_dictionary(kind):
        positions = pa.array([0, 1], kind.index_type)
        return pa.DictionaryArray.from_arrays(
            positions, _sample_of(kind.value_type), ordered=kind.ordered
        )
    if pa.types.is_struct(kind):
        children = [_sample_of(field.type) for field in kind]
        return pa.StructArray.from_arrays(children, fields=list(kind))
    offsets = pa.array([0, 1, 2], pa.int32())
    if pa.types.is_map(kind):
        keys, items = _sample_of(kind.key_type), _sample_of(kind.item_type)
        return pa.MapArray.from_arrays(offsets, keys, items).cast(kind)
    if pa.types.is_fixed_size_list(kind):
        values = pa.concat_arrays([_sample_of(kind.value_type)] * kind.list_size)
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    views = {pa.types.is_list_view: pa.ListViewArray}
    views[pa.types.is_large_list_view] = pa.LargeListViewArray
    for is_view, view in views.items():
        if is_view(kind):
            values = _sample_of(kind.value_type)
            size = pa.int32() if view is pa.ListViewArray else pa.int64()
            return view.from_arrays(pa.array([0, 1], size), pa.array([1, 1], size), values, kind)
    if pa.types.is_nested(kind):
        values = _sample_of(kind.value_type)
        return pa.ListArray.from_arrays(offsets, values).cast(kind)
    for plain in (pa.array([0, 0]), pa.array([0, 0], pa.int32()), pa.array(["0", "0"])):
        try:
            return plain.cast(kind)
        except pa.ArrowException:
            continue
    if pa.types.is_fixed_size_binary(kind):
        return pa.array([bytes(kind.byte_width)] * _ROWS, kind)
    return pa.nulls(_ROWS, kind)
