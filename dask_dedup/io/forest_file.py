"""Forest files, and whether their similarities may be asked at another threshold."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import InputError
from dask_dedup.io.parts import one_line

__all__ = ["UNVERIFIED", "check_verified"]

#: Metadata of a forest file whose similarities are 1 - d/2 of quantized distances.
UNVERIFIED = {"dask_dedup.similarity": "quantized"}


def check_verified(folder: str | os.PathLike) -> None:
    """Refuse a forest that holds quantized distances: no cosine can be asked of it.

    Whatever relabels a forest at another threshold calls this first.

    Parameters
    ----------
    folder : path
        ``OUT/forest`` of a run.

    Raises
    ------
    InputError
        A file is unverified, or cannot be read.
    """
    for path in sorted(Path(folder).glob("*.parquet")):
        try:
            notes = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)}).") from error
        if any(notes.get(key.encode()) == value.encode() for key, value in UNVERIFIED.items()):
            raise InputError(
                f"{path}: holds quantized distances of a run with --no-verify, not cosines; it "
                f"cannot be labelled at another threshold. Run again with --verify."
            )
