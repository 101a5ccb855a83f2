"""Types of the columns of a key on both sides: which can be compared, and what little says of them.

Keys are compared as text (`dask_dedup.results.row_keys`). Numbers of any width are written alike,
and so is text of any kind; bytes are hexadecimal digits, which somebody else's text may be. A
number and a text are not compared: 7 and ``007`` would be two keys, in silence. A CSV file has text
alone, and is compared with whatever the result has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dask_dedup.data.metadata_types import is_bytes
from dask_dedup.errors import SettingsError

__all__ = ["CSV_TYPE", "note_types", "refuse_other_types", "warn_of_few"]

logger = logging.getLogger(__name__)

CSV_TYPE = "text of CSV"
_FEW = 0.01  # of the rows with a key, on both sides: fewer that match are said to be few
_TEXT, _NUMBERS = "text", "numbers"


def refuse_other_types(
    names: Sequence[str],
    known: Sequence[pa.DataType],
    found: Sequence[pa.DataType | None],
    where: str,
    path: str,
) -> None:
    """Raise where a column of the key has types that do not write the same value alike.

    Parameters
    ----------
    names : sequence of str
        The columns of the key.
    known : sequence of pa.DataType
        Their types in the result.
    found : sequence of pa.DataType or None
        Those in a file; None where it has text of CSV alone.
    where, path : str
        The result, and the file: for the message.

    Raises
    ------
    SettingsError
    """
    for name, one, other in zip(names, known, found, strict=True):
        kinds = {_kind(one), _kind(other)} - {None}
        if len(kinds) > 1:
            raise SettingsError(
                f"key: {name!r} is {one} in the result {where}, and {other} in {path}: the same "
                f"value is not written alike in both (7 and '007'), so rows would not meet. Write "
                f"the column with one type in both, or name another key."
            )


def note_types(
    known: Sequence[pa.DataType], found: Sequence[Sequence[pa.DataType | None]]
) -> dict[str, list[str]]:
    """Return the types of a key for the summary: of each column, those of all files together."""
    return {
        "result": [str(one) for one in known],
        "metadata": [
            " or ".join(sorted({CSV_TYPE if one is None else str(one) for one in column}))
            for column in zip(*found, strict=True)
        ],
    }


def warn_of_few(summary: Mapping[str, Any]) -> None:
    """Log one line where nothing or nearly nothing has matched.

    ``summary`` is that of `dask_dedup.apply`. Few is less than a hundredth of the rows with a key
    on both sides: a small result and a large copy of everything, or the reverse, match well.
    """
    rows = summary["metadata"]
    keyed = summary["metadata_rows"] - rows["keyless"]
    matched = keyed - rows["unmatched"]
    result_keyed = summary["result_rows"] - summary["result"]["keyless"]
    of_result = summary["result"]["matched"]
    if not keyed or not result_keyed:
        return
    if matched and (matched >= _FEW * keyed or of_result >= _FEW * result_keyed):
        return
    types = summary["key_types"]
    each = "; ".join(
        f"{name!r} is {one} in the result and {other} in the metadata"
        for name, one, other in zip(summary["key"], types["result"], types["metadata"], strict=True)
    )
    logger.warning(
        "%s of %s rows with a key matched one of %s of the result: %s. Look whether the key is "
        "written alike in both: unmatched_metadata/ and unmatched_result/ list it.",
        f"only {matched:,}" if matched else "none",
        f"{keyed:,}",
        f"{result_keyed:,}",
        each,
    )


def _kind(one: pa.DataType | None) -> str | None:
    """Return what is written alike; None for what goes with everything."""
    if one is None or pa.types.is_null(one):
        return None
    if isinstance(one, pa.BaseExtensionType):
        one = one.storage_type
    if pa.types.is_dictionary(one):
        return _kind(one.value_type)
    if pa.types.is_string(one) or pa.types.is_large_string(one) or pa.types.is_string_view(one):
        return _TEXT
    if is_bytes(one):
        return _TEXT
    if pa.types.is_integer(one) or pa.types.is_floating(one):
        return _NUMBERS
    if pa.types.is_decimal(one) and one.scale == 0:
        return _NUMBERS
    return str(one)
