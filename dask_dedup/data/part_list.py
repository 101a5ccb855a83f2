"""The list of a data set's parts as a file: tasks carry its path, whatever the number of parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from dask_dedup.data.part_rows import PartRows
from dask_dedup.data.parts import EmbeddingFile, Part
from dask_dedup.data.spans import Span, cut_spans
from dask_dedup.errors import DamagedError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.checksums import seal_json
from dask_dedup.storage.files import read_json, write_aside

__all__ = ["PartList", "read_parts", "write_parts"]


class PartList:
    """The filled parts of a data set, and what follows from them: worked out once a process.

    Parameters
    ----------
    parts : sequence of Part
    span_rows : int
        As `cut_spans` takes it.
    """

    def __init__(self, parts: Sequence[Part], span_rows: int = 0) -> None:
        self.parts = tuple(parts)
        self.span_rows = span_rows

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The parts as tasks read them."""
        return cut_spans(self.parts, self.span_rows)

    @cached_property
    def rows(self) -> PartRows:
        """Reads any rows of the data set."""
        return PartRows(self.parts)


def write_parts(parts: Sequence[Part], path: AnyPath, span_rows: int = 0) -> None:
    """Write parts as JSON: some 400 bytes each."""
    content = {"span_rows": span_rows, "parts": [_fields(part) for part in parts]}
    with write_aside(path) as temporary:  # in one line: indented, 20,000 parts take a second
        temporary.write_text(json.dumps(seal_json(content)), encoding="utf-8")


def read_parts(path: AnyPath) -> PartList:
    """Read what `write_parts` wrote."""
    content = read_json(path)
    if content is None:
        raise DamagedError(f"{path}: is missing or damaged.", str(path))
    return PartList([_part(fields) for fields in content["parts"]], content["span_rows"])


def _fields(part: Part) -> dict[str, Any]:
    texts = part.text_embeddings
    return {
        **vars(part),
        "embeddings": vars(part.embeddings),
        "text_embeddings": None if texts is None else vars(texts),
    }


def _part(fields: dict[str, Any]) -> Part:
    files = {
        key: EmbeddingFile(**fields[key]) if fields[key] is not None else None
        for key in ("embeddings", "text_embeddings")
    }
    return Part(**{**fields, **files})
