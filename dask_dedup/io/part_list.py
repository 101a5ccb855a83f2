"""The list of a data set's parts as a file: tasks carry its path, whatever the number of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dask_dedup.io.parts import EmbeddingFile, Part
from dask_dedup.io.store import read_json, write_json

__all__ = ["read_parts", "write_parts"]


def write_parts(parts: Sequence[Part], path: Path) -> None:
    """Write parts as JSON: some 400 bytes each."""
    write_json(path, {"parts": [asdict(part) for part in parts]})


def read_parts(path: Path) -> tuple[Part, ...]:
    """Read what `write_parts` wrote."""
    content = read_json(path)
    assert content is not None, f"{path} was written before the tasks that read it"
    return tuple(_part(fields) for fields in content["parts"])


def _part(fields: dict[str, Any]) -> Part:
    files = {
        key: EmbeddingFile(**fields[key]) if fields[key] is not None else None
        for key in ("embeddings", "text_embeddings")
    }
    return Part(**{**fields, **files})
