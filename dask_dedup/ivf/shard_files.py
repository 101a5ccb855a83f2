"""Where the index of a data set lies: a handle that tasks carry, without what they need."""

from __future__ import annotations

from dataclasses import dataclass

from dask_dedup.data.finder_files import SpanFiles
from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.files import open_once, read_json

__all__ = ["IndexLayout", "Shard"]


@dataclass(frozen=True)
class Shard:
    """One faiss index file: its ``name``, the ``rows`` in it, its size in ``bytes``."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class IndexLayout(SpanFiles):
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
    def shards(self) -> tuple[Shard, ...]:
        """The finished shards; from a file as well, see `write_shards`."""
        return open_once(_read_shards, as_path(self.folder) / "shards.json")

    def shard_path(self, name: str) -> AnyPath:
        """Return the path of one shard."""
        return as_path(self.folder) / f"{name}.faiss"


def _read_shards(path: AnyPath) -> tuple[Shard, ...]:
    content = read_json(path)
    if content is None:
        raise InputError(f"{path}: cannot be read. The index is damaged; build it again.")
    return tuple(Shard(**shard) for shard in content["shards"])
