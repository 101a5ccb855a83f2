"""Decisions about single rows, made by hand or in the page: a CSV file, read and checked.

Columns: ``row_id``, or else one column of the data set such as ``url``, which decides all rows that
have the value; and ``decision``:

- ``keep``: the row stays, as a protected one does;
- ``drop``: the row is dropped, whatever else is similar to it;
- ``not-duplicates``: the row is no duplicate of its cluster: it stays, and nothing is dropped for
  it.

A decision wins over ``--protect``. Further columns do no harm beside ``row_id``.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.data.metadata import MetadataColumns, as_plain
from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath, read_text, words_of
from dask_dedup.results.roles import NOT_DUPLICATE, PROTECTED, UNWANTED

__all__ = ["DECISIONS", "Decisions", "match_keys", "read_decisions"]

#: Words, and the roles of their rows.
DECISIONS = {"keep": PROTECTED, "drop": UNWANTED, "not-duplicates": NOT_DUPLICATE}
_ROW, _DECISION = "row_id", "decision"


@dataclass(frozen=True)
class Decisions:
    """The content of a file of decisions; held in memory, some 100 bytes a line.

    Attributes
    ----------
    path : str
    text : str
        The whole file.
    key : str
        ``row_id``, or the column of the data set that names the rows.
    keys : list of int or str
        Distinct.
    words : list of str
        The decision of each.
    lines : list of int
        Where it stands.
    """

    path: str
    text: str
    key: str
    keys: list
    words: list[str]
    lines: list[int]

    @property
    def digest(self) -> str:
        """Of the content."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def is_by_row(self) -> bool:
        """Whether rows are named by ``row_id``."""
        return self.key == _ROW

    @property
    def drops(self) -> bool:
        """Whether any row is to be dropped."""
        return "drop" in self.words

    def of_rows(self) -> pd.DataFrame:
        """Return ``row_id`` and ``role``, by ``row_id``, where rows are named by it."""
        frame = pd.DataFrame({_ROW: np.array(self.keys, np.int64), "role": self._roles})
        return frame.sort_values(_ROW, ignore_index=True)

    def by_key(self) -> pd.DataFrame:
        """Return ``key``, text, and ``role``, in the order of the file."""
        return pd.DataFrame({"key": list(map(str, self.keys)), "role": self._roles})

    @property
    def _roles(self) -> np.ndarray:
        return np.array([DECISIONS[word] for word in self.words], np.uint8)

    def unknown(self, number: int) -> SettingsError:
        """Return the error of a key that no row has."""
        return SettingsError(
            f"{self.path}, line {self.lines[number]}: no row has {self.key} {self.keys[number]!r}."
        )


def read_decisions(path: str | AnyPath, columns: MetadataColumns, rows: int) -> Decisions:
    """Read and check a file of decisions.

    Parameters
    ----------
    path : path or URL
    columns : MetadataColumns
        Of the data set.
    rows : int
        Of the data set.

    Raises
    ------
    SettingsError
        The file cannot be read, or a line of it is wrong: unknown words, rows that are not there,
        two decisions about one row.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not text in UTF-8.") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({words_of(error)}).") from error
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        key = _key_of(names, path, columns)
        place, decision = names.index(_name_in_file(key, names)), names.index(_DECISION)
        found: dict[int | str, tuple[str, int]] = {}
        for values in reader:
            line = reader.line_num
            if not any(values):
                continue
            if len(values) != len(names):
                raise SettingsError(
                    f"{path}, line {line}: expected {len(names)} values, got {len(values)}."
                )
            word = values[decision].strip()
            if word not in DECISIONS:
                raise SettingsError(
                    f"{path}, line {line}: unknown decision {word!r}; expected "
                    f"{', '.join(DECISIONS)}."
                )
            one = _row_id(values[place], rows, path, line) if key == _ROW else values[place]
            earlier = found.setdefault(one, (word, line))
            if earlier[0] != word:
                raise SettingsError(
                    f"{path}, line {line}: {key} {one} is decided otherwise in line {earlier[1]}: "
                    f"{word}, and {earlier[0]} there."
                )
    except csv.Error as error:
        raise SettingsError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error
    words, lines = [word for word, _ in found.values()], [line for _, line in found.values()]
    return Decisions(str(path), text, key, list(found), words, lines)


def match_keys(given: pd.DataFrame, values: pa.ChunkedArray, row_start: int) -> pd.DataFrame:
    """Return the decided rows of a part: ``row_id``, ``role``, and the ``number`` of the decision.

    Parameters
    ----------
    given : DataFrame
        From `Decisions.by_key`.
    values : pyarrow.ChunkedArray
        Of the column that names the rows.
    row_start : int
        ``row_id`` of the first row.
    """
    texts = as_plain(pa.table({"value": values}))["value"].cast(pa.large_string())
    keys = pa.array(given["key"], pa.large_string())
    numbers = pc.index_in(texts, value_set=keys, skip_nulls=True).fill_null(-1).to_numpy()
    rows = np.flatnonzero(numbers >= 0)
    return pd.DataFrame(
        {
            _ROW: row_start + rows,
            "role": given["role"].to_numpy()[numbers[rows]],
            "number": numbers[rows].astype(np.int64),
        }
    )


def _key_of(names: list[str], path: object, columns: MetadataColumns) -> str:
    """Return ``row_id``, or the column of the data set that a file names rows by."""
    if _DECISION not in names or len(set(names)) < len(names):
        raise SettingsError(
            f"{path}, line 1: expected the names of columns, row_id and decision, got "
            f"{', '.join(names) or 'nothing'}."
        )
    others = [name for name in names if name != _DECISION]
    if _ROW in others:
        return _ROW
    if len(others) != 1:
        raise SettingsError(
            f"{path}, line 1: expected row_id, or one column of the data set, beside decision; got "
            f"{', '.join(others) or 'nothing'}."
        )
    known = {
        source: field.name
        for field, sources in zip(columns.schema, columns.sources, strict=True)
        for source in sources
    } | {name: name for name in columns.schema.names}
    if others[0] not in known:
        raise SettingsError(
            f"{path}, line 1: the data set has no column {others[0]!r}; it has "
            f"{', '.join(columns.schema.names)}."
        )
    name = known[others[0]]
    kind = as_plain(pa.table({name: pa.nulls(0, columns.schema.field(name).type)}))[name].type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise SettingsError(f"{path}, line 1: column {name!r} is {kind}, which identifies no rows.")
    return name


def _name_in_file(key: str, names: list[str]) -> str:
    return key if key == _ROW else next(name for name in names if name != _DECISION)


def _row_id(text: str, rows: int, path: object, line: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and int(text) < rows):
        raise SettingsError(
            f"{path}, line {line}: expected a row_id from 0 to {rows - 1:,}, got {text!r}."
        )
    return int(text)
