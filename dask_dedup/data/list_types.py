"""Columns whose rows are lists of numbers, and what wraps such lists: their types, their values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.errors import InputError

__all__ = ["SEVERAL", "describe_lists", "holds_floats", "list_lengths", "plain_lists"]

#: Stands for the length of a list that holds several lists.
SEVERAL = -1

#: Integers become the narrowest type that holds them exactly, those above 2**53 the nearest double.
_DTYPES = {
    pa.null(): "<f4",
    pa.float16(): "<f2",
    pa.float32(): "<f4",
    pa.float64(): "<f8",
    pa.int8(): "<f2",
    pa.uint8(): "<f2",
    pa.int16(): "<f4",
    pa.uint16(): "<f4",
    pa.int32(): "<f8",
    pa.uint32(): "<f8",
    pa.int64(): "<f8",
    pa.uint64(): "<f8",
}
_IS_LIST = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def describe_lists(path: str, column: str, arrow_type: pa.DataType) -> tuple[str, int | None]:
    """Return how numpy writes the dtype of the rows, and their length where the type has it.

    The length is 0 where the type leaves room for nulls only, `SEVERAL` where each row is a list
    of as many lists, None where only the values show it.

    Raises
    ------
    InputError
        The rows are no lists of numbers.
    """
    described = _describe(arrow_type)
    if described is None:
        raise InputError(
            f"{path}: column {column!r} (embedding_column) is expected to hold lists of float16, "
            f"float32, float64 or integers, got {arrow_type}."
        )
    return described


def holds_floats(arrow_type: pa.DataType) -> bool:
    """Return whether a column of this type holds one list, or vector, of floats a row."""
    if isinstance(arrow_type, pa.BaseExtensionType):
        return holds_floats(arrow_type.storage_type)
    return _is_list(arrow_type) and pa.types.is_floating(arrow_type.value_type)


def _describe(arrow_type: pa.DataType) -> tuple[str, int | None] | None:
    if isinstance(arrow_type, pa.BaseExtensionType):
        described = _describe(arrow_type.storage_type)
        shape = getattr(arrow_type, "shape", ())
        if described and sum(length != 1 for length in shape) > 1:  # of a tensor
            return described[0], SEVERAL
        return described
    if pa.types.is_null(arrow_type):
        return _DTYPES[arrow_type], 0
    if pa.types.is_struct(arrow_type):
        field = _only_list(arrow_type)
        return None if field is None else _describe(arrow_type.field(field).type)
    if not _is_list(arrow_type):
        return None
    fixed = arrow_type.list_size if pa.types.is_fixed_size_list(arrow_type) else None
    value_type = arrow_type.value_type
    if value_type in _DTYPES:
        return _DTYPES[value_type], 0 if pa.types.is_null(value_type) else fixed
    described = _describe(value_type)
    if described is None or fixed == 1:
        return described
    return described[0], SEVERAL if fixed else None


def plain_lists(array: pa.Array) -> pa.Array:
    """Return the lists without what wraps them, as many as there are rows.

    Null where a wrapper holds no list, or several.
    """
    if isinstance(array, pa.ExtensionArray):
        return plain_lists(array.storage)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.list_(pa.float32()))
    if pa.types.is_struct(array.type):
        return plain_lists(pc.struct_field(array, [_only_list(array.type)]))
    if array.type.value_type in _DTYPES:
        return array
    inner, held = plain_lists(array.flatten()), _held(array)
    if (held == 1).all():
        return inner
    return inner.take(pa.array(np.cumsum(held) - held, mask=held != 1))


def list_lengths(array: pa.Array) -> np.ndarray:
    """Return the length of each row's list: int64; 0 for null, `SEVERAL` for several lists."""
    lengths = _held(plain_lists(array))
    while not _is_list(array.type) and not pa.types.is_null(array.type):
        is_extension = isinstance(array, pa.ExtensionArray)
        array = array.storage if is_extension else pc.struct_field(array, [_only_list(array.type)])
    if _is_list(array.type) and array.type.value_type not in _DTYPES:
        lengths[_held(array) > 1] = SEVERAL
    return lengths


def _held(lists: pa.Array) -> np.ndarray:
    return pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _is_list(arrow_type: pa.DataType) -> bool:
    return any(is_one(arrow_type) for is_one in _IS_LIST)


def _only_list(struct: pa.StructType) -> int | None:
    """Return which field of a struct holds lists, or nothing but nulls, if one alone does."""
    types = [struct.field(i).type for i in range(struct.num_fields)]
    nulls = [i for i, one in enumerate(types) if pa.types.is_null(one)]
    lists = [i for i, one in enumerate(types) if i not in nulls and _describe(one) is not None]
    found = lists or nulls
    return found[0] if len(found) == 1 else None
