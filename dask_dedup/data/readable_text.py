"""Text for people: values that are no UTF-8 stay as they are in results, and are shown escaped."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["readable", "readable_table"]


def readable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    r"""Return a column in which all text is UTF-8, also inside lists and structs.

    Bytes that are none are written as ``\xff``; whatever is UTF-8 stays as it is.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return pa.chunked_array([_escaped(chunk) for chunk in column.chunks], column.type)
    return column


def readable_table(table: pa.Table) -> pa.Table:
    """Return a table of `readable` columns."""
    return pa.Table.from_arrays([readable(one) for one in table.columns], schema=table.schema)


def _escaped(array: pa.Array) -> pa.Array:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _escaped(array.storage))
    if pa.types.is_string_view(kind):
        return _escaped(array.cast(pa.large_string())).cast(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = array.cast(pa.large_binary()).to_pylist()
        return pa.array([v and v.decode("utf-8", "backslashreplace") for v in values], kind)
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(array.indices, _escaped(array.dictionary))
    if pa.types.is_nested(kind):
        return _escaped_inside(array)
    return array


def _escaped_inside(array: pa.Array) -> pa.Array:
    """Return a list, struct or map with the values below it made readable."""
    array = array.take(pa.array(range(len(array)), pa.int64()))  # begins at its first value
    kind, nulls = array.type, array.is_null()
    if pa.types.is_struct(kind):
        below = [_escaped(array.field(i)) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(below, fields=list(kind), mask=nulls)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(_escaped(array.values), type=kind, mask=nulls)
    if pa.types.is_map(kind):
        lists = pa.MapArray.from_arrays(
            array.offsets, _escaped(array.keys), _escaped(array.items), kind
        )
    else:
        lists = type(array).from_arrays(array.offsets, _escaped(array.values), type=kind)
    return lists if not array.null_count else pc.if_else(nulls, pa.scalar(None, kind), lists)
