"""Where the index of a data set lies: a handle that tasks carry, without what they need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dask_dedup.data.part_list import PartList, read_parts
from dask_dedup.data.parts import Part
from dask_dedup.data.spans import Span
from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.files import open_once, read_arrays, read_json

__all__ = ["IndexLayout", "Shard"]


@dataclass(frozen=True)
class Shard:
    """One faiss index file: its ``name``, the ``rows`` in it, its size in ``bytes``."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class IndexLayout:
    """Where the index of a data set lies, and what its shards are made from.

    Attributes
    ----------
    base_path : str
        The trained, empty index.
    folder : str
        Of the shards, and of what is written beside them.
    model_path : str or None
        A compressor; None indexes the embeddings themselves.
    """

    base_path: str
    folder: str
    model_path: str | None = None

    @property
    def part_list(self) -> PartList:
        """The filled parts of the data set: read from a file, which keeps tasks small."""
        return open_once(read_parts, as_path(self.folder) / "parts.json")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The filled parts of the data set."""
        return self.part_list.parts

    @property
    def spans(self) -> tuple[Span, ...]:
        """The filled parts as tasks read them."""
        return self.part_list.spans

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The finished shards; from a file as well, see `write_shards`."""
        return open_once(_read_shards, as_path(self.folder) / "shards.json")

    def query_ids(self) -> np.ndarray:
        """Return the rows that the audit has sampled."""
        return read_arrays(as_path(self.folder) / "queries.safetensors")["row_ids"]

    def path(self, kind: str, span: Span) -> AnyPath:
        """Return the path of one file of one span."""
        return as_path(self.folder) / f"{kind}-{span.index:05d}.parquet"

    def invalid_paths(self, span: Span) -> list[AnyPath]:
        """Return the files of a span's rows without a usable embedding."""
        return [self.path("invalid", span)]

    def audit_paths(self) -> list[AnyPath]:
        """Return the files of the audit's true pairs."""
        return [self.path("audit", span) for span in self.spans]

    def shard_path(self, name: str) -> AnyPath:
        """Return the path of one shard."""
        return as_path(self.folder) / f"{name}.faiss"


def _read_shards(path: AnyPath) -> tuple[Shard, ...]:
    content = read_json(path)
    if content is None:
        raise InputError(f"{path}: cannot be read. The index is damaged; build it again.")
    return tuple(Shard(**shard) for shard in content["shards"])
