"""One type for a column that has several: the one that holds every value of all of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

import pyarrow as pa

from dask_dedup.data.metadata_leaves import (
    Branch,
    Clash,
    Statistics,
    merge_bytes,
    merge_durations,
    merge_numbers,
    merge_times_of_day,
    merge_timestamps,
)

__all__ = [
    "EXTENSION",
    "PLAIN_TYPES",
    "going_on",
    "is_bytes",
    "leaf_count",
    "map_field",
    "merge_branches",
    "name_of",
    "without_view",
]

#: Notes of a field that make an extension type: its name and its parameters.
EXTENSION = b"ARROW:extension:name", b"ARROW:extension:metadata"
#: The same values in a layout that all of Arrow's functions, and pandas, know.
PLAIN_TYPES = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def leaf_count(arrow_type: pa.DataType) -> int:
    """Return the number of parquet columns that a type takes."""
    plain = _storage(arrow_type)
    if pa.types.is_nested(plain):
        return sum(leaf_count(plain.field(i).type) for i in range(plain.num_fields))
    return 1


def map_field(field: pa.Field, change: Callable[[pa.Field], pa.Field]) -> pa.Field:
    """Return a field after ``change`` of it and of all that is inside it, the inmost first."""
    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([map_field(child, change) for child in kind])
    elif pa.types.is_map(kind):
        key, item = map_field(kind.key_field, change), map_field(kind.item_field, change)
        kind = pa.map_(key, item, kind.keys_sorted)
    elif _is_list(kind):
        kind = _list_like(kind, map_field(kind.field(0), change))
    return change(field.with_type(kind))


def _list_like(kind: pa.DataType, child: pa.Field) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(child, kind.list_size)
    return next(make(child) for is_kind, make in _LIST_KINDS if is_kind(kind))


def without_view(field: pa.Field) -> pa.Field:
    """Return a field with plain text or bytes for views; for `map_field`."""
    return field.with_type(PLAIN_TYPES.get(field.type, field.type))


def going_on(name: str) -> str:
    """Return the advice that goes with each refusal of a column."""
    shown = shlex.quote(name) if name.isprintable() else repr(name)
    return f"--drop-columns {shown} goes on without it."


def name_of(field: pa.Field) -> str:
    """Return the type of a field in words, an extension that pyarrow does not know included."""
    extension = _extension(field)
    return str(field.type) if extension is None else f"{extension[0].decode()} ({field.type})"


def merge_branches(branches: Sequence[Branch], statistics: Statistics) -> pa.Field:
    """Return a field that holds the values of all branches; the notes are those of the first.

    Raises
    ------
    Clash
        There is none.
    """
    filled = [branch for branch in branches if not pa.types.is_null(branch.type)] or branches
    try:
        arrow_type = _merge(filled, statistics)
    except Clash:
        valued = [b for b in filled if pa.types.is_nested(b.type) or not statistics.are_null(b)]
        if len(valued) == len(filled):
            raise
        filled = valued or filled[:1]
        arrow_type = _merge(filled, statistics)
    nullable = any(branch.field.nullable for branch in branches)
    notes = filled[0].field
    if any(_extension(branch.field) != _extension(notes) for branch in filled):
        # What JSON and text have in common is text.
        notes = next(branch.field for branch in filled if _extension(branch.field) is None)
    return notes.with_type(arrow_type).with_nullable(nullable)


def _merge(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    first = branches[0]
    for other in branches[1:]:
        if _extension(other.field) != _extension(first.field) and not _are_texts([first, other]):
            raise Clash(first, other, "an extension type and another one are not the same")
    if all(first.type.equals(other.type, check_metadata=True) for other in branches):
        return first.type
    if all(pa.types.is_dictionary(branch.type) for branch in branches):
        values = merge_branches([_of_values(branch) for branch in branches], statistics).type
        indices = [branch.type.index_type for branch in branches]
        index = max(indices, key=lambda index_type: index_type.bit_width)
        if len({pa.types.is_signed_integer(index_type) for index_type in indices}) > 1:
            index = pa.int32() if index.bit_width < 32 else pa.int64()  # what Arrow holds in it
        return pa.dictionary(index, values, all(branch.type.ordered for branch in branches))
    plain = [_of_values(b) if pa.types.is_dictionary(b.type) else b for b in branches]
    types = [branch.type for branch in plain]
    if all(types[0] == other for other in types) and not pa.types.is_nested(types[0]):
        return types[0]
    for belongs, merge in _FAMILIES:
        if all(belongs(arrow_type) for arrow_type in types):
            return merge(plain, statistics)
    other = next(b for b in plain if _family(b.type) != _family(types[0]) or b.type != types[0])
    raise Clash(branches[0], branches[plain.index(other)], "no type holds the values of both")


# --- nested types ---------------------------------------------------------------------------------


def _merge_lists(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    inside = [Branch(b.type.field(0), b.group, b.leaf) for b in branches]
    child = merge_branches(inside, statistics)
    types = [branch.type for branch in branches]
    if len({(type(kind), getattr(kind, "list_size", -1)) for kind in types}) == 1:
        return _list_like(types[0], child)
    large = any(map(pa.types.is_large_list, types)) or any(map(pa.types.is_large_list_view, types))
    return pa.large_list(child) if large else pa.list_(child)


def _merge_structs(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    found: dict[str, list[Branch]] = {}
    for branch in branches:
        leaf = branch.leaf
        for field in branch.type:
            own = found.setdefault(field.name, [])
            if own and own[-1].group == branch.group:
                raise Clash(branches[0], branch, f"field {field.name!r} stands there twice")
            own.append(Branch(field, branch.group, leaf))
            leaf += leaf_count(field.type)
    fields = []
    for own in found.values():
        field = merge_branches(own, statistics)
        fields.append(field if len(own) == len(branches) else field.with_nullable(True))
    return pa.struct(fields)


def _merge_maps(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    keys = [Branch(b.type.key_field, b.group, b.leaf) for b in branches]
    items = [
        Branch(b.type.item_field, b.group, b.leaf + leaf_count(b.type.key_type)) for b in branches
    ]
    return pa.map_(
        merge_branches(keys, statistics).with_nullable(False),
        merge_branches(items, statistics),
        all(branch.type.keys_sorted for branch in branches),
    )


# --- families -------------------------------------------------------------------------------------


def _merge_texts(branches: Sequence[Branch], statistics: Statistics) -> pa.DataType:
    types = [_storage(branch.type) for branch in branches]
    return pa.large_string() if any(map(pa.types.is_large_string, types)) else pa.string()


def _are_texts(branches: Sequence[Branch]) -> bool:
    """Return whether all are text or JSON, as a type or as a note on text."""
    return all(
        (_is_json(branch.type) or _is_text(branch.type))
        and (_extension(branch.field) or (b"arrow.json",))[0] == b"arrow.json"
        for branch in branches
    )


def _is_text(arrow_type: pa.DataType) -> bool:
    return (
        pa.types.is_string(arrow_type)
        or pa.types.is_large_string(arrow_type)
        or arrow_type == pa.string_view()
    )


def _is_json(arrow_type: pa.DataType) -> bool:
    return getattr(arrow_type, "extension_name", "") == "arrow.json"


def is_bytes(arrow_type: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's layouts of bytes."""
    return (
        pa.types.is_binary(arrow_type)
        or pa.types.is_large_binary(arrow_type)
        or pa.types.is_fixed_size_binary(arrow_type)
        or arrow_type == pa.binary_view()
    )


def _is_number(arrow_type: pa.DataType) -> bool:
    is_number = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal
    return any(belongs(arrow_type) for belongs in is_number)


def _is_list(arrow_type: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(arrow_type) or any(
        is_kind(arrow_type) for is_kind, _ in _LIST_KINDS
    )


_LIST_KINDS = [
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
]
_FAMILIES = [
    (_is_list, _merge_lists),
    (pa.types.is_struct, _merge_structs),
    (pa.types.is_map, _merge_maps),
    (_is_number, merge_numbers),
    (pa.types.is_timestamp, merge_timestamps),
    (pa.types.is_duration, merge_durations),
    (pa.types.is_time, merge_times_of_day),
    (pa.types.is_date, lambda branches, statistics: pa.date32()),
    (lambda arrow_type: _is_text(arrow_type) or _is_json(arrow_type), _merge_texts),
    (is_bytes, merge_bytes),
]


def _family(arrow_type: pa.DataType) -> int:
    found = (i for i, (belongs, _) in enumerate(_FAMILIES) if belongs(arrow_type))
    return next(found, len(_FAMILIES))


def _of_values(branch: Branch) -> Branch:
    """Return a branch of a dictionary's values."""
    return branch._replace(field=branch.field.with_type(branch.type.value_type))


def _extension(field: pa.Field) -> tuple[bytes, bytes] | None:
    """Return name and parameters of an extension type that the field's notes name."""
    notes = field.metadata or {}
    return (notes[EXTENSION[0]], notes.get(EXTENSION[1], b"")) if EXTENSION[0] in notes else None


def _storage(arrow_type: pa.DataType) -> pa.DataType:
    is_extension = isinstance(arrow_type, pa.BaseExtensionType)
    return arrow_type.storage_type if is_extension else arrow_type
