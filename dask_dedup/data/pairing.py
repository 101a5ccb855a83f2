"""Whether files that are paired by order belong together, by what varies in their names.

1. Each path is cut into words, numbers and hashes; what all paths of one kind share is dropped.
2. What is left are columns: how one number, or one word, runs through the files of that kind.
3. The columns of numbers of both kinds are compared: equal, contradicting, or of different meaning.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

from dask_dedup.errors import InputError

__all__ = ["check_pairs", "missing_numbers"]

_TOKEN = re.compile(
    r"""
    (?P<hash>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}
      | (?<![0-9a-z])(?=[0-9a-f]*(?:\d[a-f]+\d|[a-f]\d+[a-f]))[0-9a-f]{8,}(?![0-9a-z]))
    | (?P<number>\d+)
    | [^\W\d_]+
    """,
    re.VERBOSE,
)
_SHOWN = 4  # of the missing numbers
_ROW_STEP = 10  # names that count rows rise by more from file to file than names that count files
Column = tuple[Hashable, ...]


class _Columns(NamedTuple):
    """What varies in the names of one kind: one value per file in each."""

    numbers: list[Column]
    words: list[Column]


def check_pairs(kind: str, paths: Sequence[str], metadata_paths: Sequence[str]) -> str | None:
    """Compare the names of files that are paired by order.

    Zero padding, and numbers and words that are the same in all names of one kind, do not count.

    Parameters
    ----------
    kind : str
        What ``paths`` hold, in the plural: ``embeddings``.
    paths, metadata_paths : sequence of str
        As many of one as of the other, in the order in which they are paired.

    Returns
    -------
    str or None
        How they were paired, where their names do not say; None where they confirm the order.

    Raises
    ------
    InputError
        They contradict it: the names are numbered alike, and some pair has two numbers.
    """
    pairs = f"{paths[0]} with {metadata_paths[0]}"
    if len(paths) == 1:
        numbers = [
            {int(n) for n in re.findall(r"\d+", Path(p[0]).name)} for p in (paths, metadata_paths)
        ]
        if not all(numbers) or numbers[0] & numbers[1]:
            return None
        return f"{pairs}: paired, though the numbers of their names differ"
    pairs += f", …, {paths[-1]} with {metadata_paths[-1]}"
    own, other = _columns(paths), _columns(metadata_paths)
    if not own.numbers and not other.numbers:
        compared = _compare(own.words, other.words)
        if compared.agree:
            return None
        if compared.clash is not None:
            raise _contradiction(kind, paths, metadata_paths, *compared.clash)
        return f"{kind} and metadata are paired by order, without numbers in their names: {pairs}"
    compared = _compare(own.numbers, other.numbers)
    if compared.clash is not None:
        raise _contradiction(kind, paths, metadata_paths, *compared.clash)
    if compared.agree:
        if _is_unique(compared.key):
            return None
        words = _compare(own.words, other.words)
        if words.clash is not None:
            raise _contradiction(kind, paths, metadata_paths, *words.clash)
        if words.agree:
            return None
    return f"{kind} and metadata are paired by order, their names being numbered unlike: {pairs}"


def missing_numbers(kind: str, paths: Sequence[str], metadata_paths: Sequence[str]) -> str:
    """Say which numbers files of one kind lack that those of the other have; empty if unclear."""
    own, other = _columns(paths), _columns(metadata_paths)
    for columns in (own.numbers, other.numbers):
        if len(columns) != 1 or not _is_unique(columns[0]):
            return ""
    return _lacking(kind, own.numbers[0], other.numbers[0])


class _Compared(NamedTuple):
    """``clash``: two columns that contradict each other; ``key``: the column that agrees."""

    agree: bool
    key: Column = ()
    clash: tuple[Column, Column] | None = None


def _compare(own: list[Column], other: list[Column]) -> _Compared:
    """Say whether the columns of two kinds run alike, contradict, or have nothing in common.

    Names with more numbers on one side (of the writer's tasks, say) agree where each of the other
    side's is found among them.
    """
    if not own or not other:
        return _Compared(False)
    few, many = sorted((own, other), key=len)
    rest = list(many)
    for column in few:
        if column in rest:
            rest.remove(column)
    if len(many) - len(rest) == len(few):
        key = tuple(zip(*few, strict=True))
        return _Compared(len(few) == len(many) or _is_unique(key), key)
    if len(own) == len(other):
        one, two = (
            columns[0] if len(own) == 1 else tuple(zip(*columns, strict=True))
            for columns in (own, other)
        )
        if _is_other_count(one, two):
            return _Compared(False)
        return _Compared(False, clash=(one, two) if (set(one) & set(two)) - {None} else None)
    pairs = [(a, b) for a in own for b in other if _is_unique(a) and _is_unique(b)]
    near = [(len(set(a) & set(b)), a, b) for a, b in pairs if not _is_other_count(a, b)]
    shared, a, b = max(near, key=lambda found: found[0], default=(0, (), ()))
    return _Compared(False, clash=(a, b) if 2 * shared > len(a) else None)


def _is_other_count(own: Column, other: Column) -> bool:
    """Return whether two columns count the same files: from 0 and from 1, or files and rows."""
    one, two = _step(own), _step(other)
    if one is None or two is None:
        return False
    if one == two:
        return {own[0], other[0]} == {0, 1}
    return len(own) > 2 and max(one, two) >= _ROW_STEP * min(one, two)


def _step(column: Column) -> int | None:
    """Return by how much a column rises from file to file, if always by as much."""
    if not all(isinstance(value, int) for value in column):
        return None
    rises = {b - a for a, b in pairwise(column)}  # type: ignore[operator]
    return rises.pop() if len(rises) == 1 else None


def _is_unique(column: Iterable[Hashable]) -> bool:
    values = list(column)
    return len(set(values)) == len(values)


def _columns(paths: Sequence[str]) -> _Columns:
    """Cut the names of one kind into columns, and keep those that vary."""
    start = _shared(paths).rfind("/") + 1
    end = _shared([path[:start:-1] for path in paths]).rfind(".") + 1
    names = [path[start : len(path) - end].lower() for path in paths]
    rows = [[_value(found) for found in _TOKEN.finditer(name)] for name in names]
    found = _Columns([], [])
    for column in zip_longest(*rows):
        if len(set(column)) > 1:
            is_number = all(isinstance(value, int | None) for value in column)
            (found.numbers if is_number else found.words).append(
                column if is_number else tuple(str(value) for value in column)
            )
    return found


def _shared(names: Sequence[str]) -> str:
    """Return what all names begin with, letter by letter."""
    return os.path.commonprefix([min(names), max(names)])  # noqa: RUF071  letters are meant


def _value(found: re.Match[str]) -> int | str:
    return int(found[0]) if found["number"] else found[0]


def _contradiction(
    kind: str, paths: Sequence[str], metadata_paths: Sequence[str], own: Column, other: Column
) -> InputError:
    """Return the error that names the first pair that does not belong together."""
    i = next(i for i, (a, b) in enumerate(zip(own, other, strict=True)) if a != b)
    lacking = _lacking(kind, own, other) or "the same ones are there in another order"
    return InputError(
        f"{paths[i]}: would be paired with {metadata_paths[i]}, but their names say "
        f"{_shown(own[i])} and {_shown(other[i])}: {lacking}. Each row needs its own embedding: "
        f"bring the missing files, or take their counterparts away. Where the names mean something "
        f"else, rename the files, or links to them."
    )


def _lacking(kind: str, own: Column, other: Column) -> str:
    """Return ``"embeddings lack 2, metadata lack 1"``."""
    lacking = []
    for name, there, wanted in ((kind, own, other), ("metadata", other, own)):
        missing = list((Counter(wanted) - Counter(there)).elements())
        if missing:
            some = ", ".join(map(_shown, missing[:_SHOWN]))
            more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
            lacking.append(f"{name} lack {some}{more}")
    return ", ".join(lacking)


def _shown(value: Hashable) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_shown, value))
    return "no number" if value is None else str(value)
