"""Which columns the metadata of a data set have: their names, one type for all parts, their notes.

Decided by the footers before the first task, and by values only where footers do not suffice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from dask_dedup.data.metadata_check import ColumnStatistics, choose_int96_unit, special_of
from dask_dedup.data.metadata_footer import SCHEMA_NOTES, plain_field, read_footer
from dask_dedup.data.metadata_leaves import Branch, Clash
from dask_dedup.data.metadata_notes import notes_of_field
from dask_dedup.data.metadata_samples import can_cast, written_field
from dask_dedup.data.metadata_types import going_on, is_bytes, merge_branches, name_of
from dask_dedup.data.parts import Part
from dask_dedup.errors import ColumnError, InputError
from dask_dedup.schema import RESERVED_COLUMNS

__all__ = ["MetadataColumns", "unify_columns"]

logger = logging.getLogger(__name__)

_URL_NAMES = ("url", "URL")
_CAPTION_NAMES = ("caption", "TEXT")


@dataclass(frozen=True)
class MetadataColumns:
    """The columns of a data set's metadata, the same for every part.

    Attributes
    ----------
    schema : pyarrow.Schema
        Our names, the types in which all parts are read, and notes for parts that lack the column;
        ``url`` and ``caption`` first.
    sources : tuple of tuples of str
        For each field its names in the files, of which each file has one at the most; empty where
        none has it.
    int96_unit : str
        In which times that are stored as INT96 are read.
    """

    schema: pa.Schema
    sources: tuple[tuple[str, ...], ...]
    int96_unit: str = "us"

    def select(self, names: Sequence[str]) -> MetadataColumns:
        """Return only the columns ``names``, in that order."""
        indices = [self.schema.get_field_index(name) for name in names]
        return MetadataColumns(
            pa.schema([self.schema.field(i) for i in indices]),
            tuple(self.sources[i] for i in indices),
            self.int96_unit,
        )


def unify_columns(
    parts: Sequence[Part],
    schemas: Sequence[pa.Schema],
    url_column: str | None = None,
    caption_column: str | None = None,
    only: Sequence[str] | None = None,
    dropped: Sequence[str] | None = None,
) -> MetadataColumns:
    """Find one schema that all parts can be read as.

    Parameters
    ----------
    parts, schemas
        As many schemas as parts, as `dask_dedup.data.metadata_footer.read_footer` returns them.
    url_column, caption_column : str or None
        Names in the files. None: ``url`` or ``URL``, and ``caption`` or ``TEXT``, also one in some
        parts and the other in others.
    only : sequence of str, optional
        The columns that are carried beside ``url`` and ``caption``.
    dropped : sequence of str, optional
        Columns that are not carried.

    Raises
    ------
    InputError
        A named column is in no part, a name stands twice in one file, or there is no metadata.
    ColumnError
        No type holds what a column has in two parts, or it could not be written as it is.
    """
    if not parts[0].metadata_path:
        return _no_columns(parts[0], url_column or caption_column, only, dropped)
    found = _Found(parts, schemas)
    found.check_named("columns", only)
    found.check_named("drop_columns", dropped)
    dropped_names = set(dropped or ())
    texts = {
        "url": found.spellings("url", url_column, _URL_NAMES, dropped_names),
        "caption": found.spellings("caption", caption_column, _CAPTION_NAMES, dropped_names),
    }
    in_texts = {name for names in texts.values() for name in names}
    carried = [
        name
        for name in found.names
        if name not in in_texts | dropped_names and (only is None or name in only)
    ]
    found.warn_of_other_spellings(carried)
    found.warn_of_schema_notes()
    unit = found.settle_int96({*carried, *in_texts})

    fields: list[pa.Field] = []
    sources: list[tuple[str, ...]] = []
    for name, names in texts.items():
        fields.append(pa.field(name, pa.string()) if not names else found.text(name, names))
        sources.append(names)
    taken = RESERVED_COLUMNS | set(found.names)
    for source in carried:
        name = source
        if name in RESERVED_COLUMNS:
            name = f"source_{name}"
            while name in taken:
                name = f"source_{name}"
            taken |= {name}
        fields.append(found.merged((source,)).with_name(name))
        sources.append((source,))
    fields = [
        found.written(field, names)
        .with_nullable(True)
        .with_metadata(notes_of_field(None, field) or None)
        for field, names in zip(fields, sources, strict=True)
    ]
    return MetadataColumns(pa.schema(fields), tuple(sources), unit)


def _no_columns(
    part: Part, text: str | None, only: Sequence[str] | None, dropped: Sequence[str] | None
) -> MetadataColumns:
    """Return the columns of a data set without metadata; refuse names of any."""
    for name in (text, *(only or ()), *(dropped or ())):
        if name:
            raise InputError(
                f"{part.embeddings.path}: column {name!r} is named, but there is no metadata. "
                f"metadata (--metadata) says where it is."
            )
    return MetadataColumns(pa.schema([]), ())


class _Found:
    """The columns as the files have them; equal schemas are looked at once."""

    def __init__(self, parts: Sequence[Part], schemas: Sequence[pa.Schema]) -> None:
        self.first_path = parts[0].metadata_path
        of_schema: dict[bytes, list[Part]] = {}
        for part, schema in zip(parts, schemas, strict=True):
            of_schema.setdefault(schema.serialize().to_pybytes(), []).append(part)
        self.kinds: list[tuple[pa.Schema, list[Part]]] = []
        for serialized, own in of_schema.items():
            schema = pa.ipc.read_schema(pa.py_buffer(serialized))
            twice = {name for name in schema.names if schema.names.count(name) > 1}
            if twice:
                raise InputError(
                    f"{own[0].metadata_path}: column {min(twice)!r} stands there more than once."
                )
            self.kinds.append((pa.schema(map(plain_field, schema), schema.metadata), own))
        self.names = list(dict.fromkeys(name for schema, _ in self.kinds for name in schema.names))

    def check_named(self, setting: str, names: Sequence[str] | None) -> None:
        """Refuse names that are in no part."""
        for name in names or ():
            if name not in self.names:
                raise InputError(
                    f"{self.first_path}: no column {name!r} ({setting}); "
                    f"the columns are {', '.join(self.names)}."
                )

    def spellings(
        self, what: str, wanted: str | None, usual: Sequence[str], dropped: set[str]
    ) -> tuple[str, ...]:
        """Return the names in the files of the column of URLs, or of captions."""
        setting = f"{what}_column"
        if wanted is not None:
            self.check_named(setting, [wanted])
            nested = [
                (own[0], schema.field(wanted))
                for schema, own in self._having((wanted,))
                if pa.types.is_nested(schema.field(wanted).type)
            ]
            if nested:
                raise InputError(
                    f"{nested[0][0].metadata_path}: column {wanted!r} is expected to be text, got "
                    f"{nested[0][1].type} ({setting} names another column)."
                )
            return (wanted,) if wanted not in dropped else ()
        there = [name for name in usual if name in self.names and name not in dropped]
        if not there:
            if not dropped & set(usual):
                logger.warning(
                    "no column %s in the metadata (%s gives another name); results are keyed by "
                    "row_id",
                    " or ".join(usual),
                    setting,
                )
            return ()
        if any(len(set(there) & set(schema.names)) > 1 for schema, _ in self.kinds):
            others = self._having(tuple(there[1:]))
            lacking = [part for s, own in others if there[0] not in s.names for part in own]
            if lacking:
                logger.warning(
                    "columns %s: some parts have both, and are two columns therefore; %s%s has no "
                    "%r, so its %s are null",
                    " and ".join(map(repr, there)),
                    lacking[0].metadata_path,
                    _and_more(len(lacking)),
                    there[0],
                    what,
                )
            return (there[0],)
        return tuple(there)

    def warn_of_other_spellings(self, names: Sequence[str]) -> None:
        """Warn of columns that may be one: no part has both, and only case differs."""
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(name.casefold(), []).append(name)
        for group in alike.values():
            if len(group) > 1 and not any(
                set(group) <= set(schema.names) for schema, _ in self.kinds
            ):
                logger.warning(
                    "columns %s: spelled differently in different parts; they are carried as %d "
                    "columns",
                    " and ".join(map(repr, group)),
                    len(group),
                )

    def warn_of_schema_notes(self) -> None:
        """Warn of notes that are not carried, since they would hide the columns of the result."""
        for note in SCHEMA_NOTES:
            if any(note in (schema.metadata or {}) for schema, _ in self.kinds):
                logger.warning(
                    "the footers' note %s has the schema of the input files only, and is not "
                    "carried into the result",
                    note.decode(),
                )

    def settle_int96(self, carried: set[str]) -> str:
        """Choose the unit of times that are stored as INT96, and read types in that unit."""
        chosen = [
            (pa.schema([f for f in schema if f.name in carried], schema.metadata), own)
            for schema, own in self.kinds
        ]
        unit = choose_int96_unit(chosen)
        if unit != "us":
            self.kinds = [
                (read_footer(own[0].metadata_path, unit)[1] if schema.names else schema, own)
                for schema, own in self.kinds
            ]
        return unit

    def text(self, what: str, names: tuple[str, ...]) -> pa.Field:
        """Return the field of URLs or captions: as text where parts have no other type in common.

        What is no text keeps its type: nobody needs it to be one.
        """
        field = self.merged(names, as_text=True).with_name(what)
        if pa.types.is_null(field.type) or not any(
            p.rows for _, own in self._having(names) for p in own
        ):
            return pa.field(what, pa.string())
        if pa.types.is_nested(field.type):
            logger.warning(
                "column %r holds %s, no text; it is carried as it is (%s_column names another "
                "column)",
                names[0],
                field.type,
                what,
            )
        return field

    def merged(self, names: tuple[str, ...], as_text: bool = False) -> pa.Field:
        """Return one field for a column; ``as_text``: text where types have nothing in common."""
        groups: dict[bytes, list[Part]] = {}
        branches: list[Branch] = []
        for schema, own in self._having(names):
            field = schema.field(next(name for name in names if name in schema.names))
            key = pa.schema([field.with_name("")]).serialize().to_pybytes()
            if key not in groups:
                branches.append(Branch(field, len(groups), 0))
            groups.setdefault(key, []).extend(own)
        of_group = list(groups.values())
        self._check_carried(branches, of_group)
        statistics = ColumnStatistics(names, of_group)
        if not any(part.rows for own in of_group for part in own):
            return branches[0].field
        try:
            merged = merge_branches(branches, statistics)
            for branch in branches:
                if not can_cast(branch.type, merged.type) and (
                    pa.types.is_nested(branch.type) or not statistics.are_null(branch)
                ):
                    raise Clash(branches[0], branch, "no conversion of the one holds for the other")
        except Clash as clash:
            if as_text and all(_is_text_of(branch, statistics) for branch in branches):
                return pa.field(names[0], pa.string())
            first, second = clash.first.group, clash.second.group
            here = of_group[second]
            raise ColumnError(
                f"{here[0].metadata_path}: column {names[0]!r} is "
                f"{name_of(branches[second].field)}{_and_more(len(here))}, and "
                f"{name_of(branches[first].field)} in {_names_of(of_group[first])}: {clash.reason}"
                f". Write it with one type in all parts; {going_on(names[0])}"
            ) from clash
        return merged

    def written(self, field: pa.Field, names: tuple[str, ...]) -> pa.Field:
        """Return a field as it can be written; raise ColumnError where it cannot."""
        found = written_field(field)
        if found is not None:
            return found
        raise ColumnError(
            f"{_names_of(self._having(names)[0][1])}: column {names[0]!r} is {name_of(field)}, "
            f"which cannot be written so that it comes back as it was. Write it with another type; "
            f"{going_on(names[0])}"
        )

    def _having(self, names: tuple[str, ...]) -> list[tuple[pa.Schema, list[Part]]]:
        """Return the parts that have a column; those without rows only where no other has it."""
        having = [
            (schema, own)
            for schema, own in self.kinds
            if any(name in schema.names for name in names)
        ]
        filled = [
            (schema, [part for part in own if part.rows and part.metadata_problem is None])
            for schema, own in having
        ]
        return [(schema, own) for schema, own in filled if own] or having

    def _check_carried(self, branches: Sequence[Branch], groups: Sequence[Sequence[Part]]) -> None:
        for branch in branches:
            for what in special_of(branch.field).values():
                if what != "INT96":
                    here = groups[branch.group]
                    raise ColumnError(
                        f"{here[0].metadata_path}: column {branch.field.name!r} is {what}"
                        f"{_and_more(len(here))}, which Arrow reads as {branch.field.type} and "
                        f"cannot write again. Write it with another type; "
                        f"{going_on(branch.field.name)}"
                    )


def _is_text_of(branch: Branch, statistics: ColumnStatistics) -> bool:
    """Return whether values can be had as text: numbers and times always, bytes where UTF-8."""
    if pa.types.is_nested(branch.type) or not can_cast(branch.type, pa.string()):
        return False
    return not is_bytes(branch.type) or statistics.are_text(branch)


def _names_of(parts: Sequence[Part]) -> str:
    return f"{parts[0].metadata_path}{_and_more(len(parts))}"


def _and_more(count: int) -> str:
    return "" if count < 2 else f" (and in {count - 1:,} more part{'s' if count > 2 else ''})"
