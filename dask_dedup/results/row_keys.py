"""Keys by which rows of a result and of another copy of its data are known: columns as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.data.metadata_types import is_bytes
from dask_dedup.errors import SettingsError

__all__ = ["KEY", "has_folder", "key_texts", "named_column", "split_folders"]

KEY = pa.large_string()
_SEPARATOR = "\x1f"
_ALIASES = {"url": ("URL",), "URL": ("url",), "caption": ("TEXT",), "TEXT": ("caption",)}


def named_column(
    name: str, columns: Collection[str], where: str, others: Sequence[str] = ()
) -> str:
    """Return what the column of a key is called somewhere.

    Parameters
    ----------
    name : str
        What the user calls it. ``url`` and ``URL`` are one, and so are ``caption`` and ``TEXT``.
    columns : collection of str
        The columns that there are.
    where : str
        For the message.
    others : sequence of str
        Further names that it may have there.

    Raises
    ------
    SettingsError
        There is none, or more than one of that name.
    """
    for known in (name, *others, *_ALIASES.get(name, ())):
        if known in columns:
            if list(columns).count(known) > 1:
                raise SettingsError(f"key: {where} has more than one column {known!r}.")
            return known
    raise SettingsError(f"key: {where} has no column {name!r}; it has {', '.join(columns)}.")


def key_texts(columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.Array:
    """Return one text for each row from the columns of its key.

    It is null where one of them is null, NaN or empty. Numbers are written out, whole ones
    without a fraction or an exponent, bytes as hexadecimal digits.

    Raises
    ------
    SettingsError
        A column is nested.
    """
    texts = [_texts(column) for column in columns]
    if len(texts) == 1:
        return texts[0]
    escaped = [
        pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), _SEPARATOR, "\\u")
        for text in texts
    ]  # so that no two keys become one
    return pc.binary_join_element_wise(*escaped, pa.scalar(_SEPARATOR, KEY))


def has_folder(keys: pa.Array) -> bool:
    """Return whether one of some keys has a slash in it."""
    return bool(pc.any(pc.match_substring(keys, "/")).as_py())


def split_folders(keys: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return what stands before the last slash of each key, with the slash, and what follows it.

    Examples
    --------
    >>> folders, names = split_folders(pa.array(["a/b/1", "2", None], KEY))
    >>> folders.to_pylist(), names.to_pylist()
    (['a/b/', '', None], ['1', '2', None])
    """
    found = pc.extract_regex(  # as bytes: a name may be no UTF-8
        keys.view(pa.large_binary()), "(?s)^(?P<folder>(?:.*/)?)(?P<name>[^/]*)$"
    )
    folders, names = (pc.struct_field(found, name).view(KEY) for name in ("folder", "name"))
    return folders, names


def _number_texts(column: pa.Array) -> pa.Array:
    """Write floating numbers: pandas has NaN where others have null, and 3.0 where they have 3."""
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    values = column.cast(pa.float64())
    is_whole = pc.and_(pc.equal(pc.trunc(values), values), pc.less(pc.abs(values), 2.0**63))
    whole = pc.if_else(is_whole, values, 0.0).cast(pa.int64())
    return pc.if_else(is_whole, whole.cast(KEY), column.cast(KEY))


def _texts(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no chunk
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column, kind = column.storage, kind.storage_type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_nested(kind):
        raise SettingsError(f"key: expected columns of text or numbers, got {kind}.")
    if is_bytes(kind):
        column = pa.array([v and v.hex() for v in column.to_pylist()], KEY)
    column = _number_texts(column) if pa.types.is_floating(kind) else column.cast(KEY)
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, KEY), column)
