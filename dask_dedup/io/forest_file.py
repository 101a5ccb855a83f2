"""Forest files, and whether their similarities may be asked at another threshold."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import InputError
from dask_dedup.io.objects import list_files, open_parquet_source
from dask_dedup.io.parts import one_line
from dask_dedup.places import as_place

__all__ = ["UNVERIFIED", "check_verified"]

#: Metadata of a forest file whose similarities are 1 - d/2 of quantized distances.
UNVERIFIED = {"dask_dedup.similarity": "quantized"}


def check_verified(folder: str | os.PathLike) -> None:
    """Refuse a forest that holds quantized distances: no cosine can be asked of it.

    Whatever relabels a forest at another threshold calls this first.

    Parameters
    ----------
    folder : path or URL
        ``OUT/forest`` of a run.

    Raises
    ------
    InputError
        A file is unverified, or cannot be read.
    """
    place = as_place(folder)
    names = sorted(name for name in list_files(place) or [] if name.endswith(".parquet"))
    for path in [place / name for name in names]:
        try:
            notes = pq.read_schema(open_parquet_source(path)).metadata or {}
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)}).") from error
        if any(notes.get(key.encode()) == value.encode() for key, value in UNVERIFIED.items()):
            raise InputError(
                f"{path}: holds quantized distances of a run with --no-verify, not cosines; it "
                f"cannot be labelled at another threshold. Run again with --verify."
            )
