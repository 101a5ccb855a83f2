"""Forest files: which thresholds they answer, and whether their similarities are cosines."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from dask_dedup.errors import SettingsError
from dask_dedup.io.checksums import damage
from dask_dedup.io.forest_range import range_of_notes
from dask_dedup.io.objects import open_parquet_source

__all__ = ["UNVERIFIED", "check_answers"]

#: Metadata of a forest file whose similarities are 1 - d/2 of quantized distances.
UNVERIFIED = {"dask_dedup.similarity": "quantized"}


def check_answers(path: Path, threshold: float) -> None:
    """Refuse a threshold that a forest file does not answer; whatever labels one calls this first.

    Parameters
    ----------
    path : Path
        One file of ``OUT/forest``.
    threshold : float
        Cosine. -1 takes all edges, which quantized distances allow, too.

    Raises
    ------
    SettingsError
        The forest was searched from a higher threshold up, or with dense groups and below this one;
        or it holds quantized distances: no cosine can be asked of it.
    DamagedError
        The file cannot be read.
    """
    with damage(path):
        notes = pq.read_schema(open_parquet_source(path)).metadata or {}
    is_quantized = all(notes.get(k.encode()) == v.encode() for k, v in UNVERIFIED.items())
    if is_quantized and threshold > -1:
        raise SettingsError(
            f"{path}: holds quantized distances of a run with --no-verify, not cosines; it cannot "
            f"be labelled at a threshold. Run again with --verify."
        )
    if (known := range_of_notes(notes)) is not None:
        known.check(threshold, str(path))
