"""Forest files: where they lie, which thresholds they answer, and whether they hold cosines."""

from __future__ import annotations

import pyarrow.parquet as pq

from dask_dedup.errors import SettingsError
from dask_dedup.graph.forest_range import ForestRange, range_of_notes
from dask_dedup.graph.origin import Origin, origin_of_notes
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.objects import open_parquet_source

__all__ = ["UNVERIFIED", "check_answers", "forest_path", "read_origin", "read_range"]

#: Metadata of a forest file whose similarities are 1 - d/2 of quantized distances.
UNVERIFIED = {"dask_dedup.similarity": "quantized"}


def forest_path(out: str | AnyPath) -> AnyPath:
    """Return the one file of a forest, below OUT of a run or the folder of `write_forest`."""
    return as_path(out) / "forest" / "part-00000.parquet"


def check_answers(path: AnyPath, threshold: float) -> None:
    """Refuse a threshold that a forest file does not answer; called before a forest is labelled.

    Parameters
    ----------
    path : AnyPath
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
    if threshold > -1 and (known := read_range(path)) is not None:
        known.check(threshold, str(path))


def read_range(path: AnyPath) -> ForestRange | None:
    """Return the thresholds that a forest file answers; None where it is no forest of dask_dedup.

    Raises
    ------
    SettingsError, DamagedError
        As `check_answers`.
    """
    notes = _read_notes(path)
    if all(notes.get(key.encode()) == value.encode() for key, value in UNVERIFIED.items()):
        raise SettingsError(
            f"{path}: holds quantized distances of a run with --no-verify, not cosines; it cannot "
            f"be labelled at a threshold. Run again with --verify."
        )
    return range_of_notes(notes)


def read_origin(path: AnyPath) -> Origin | None:
    """Return which data set a forest file is of; None where it does not say."""
    return origin_of_notes(_read_notes(path))


def _read_notes(path: AnyPath) -> dict[bytes, bytes]:
    with damage(path):
        return pq.read_schema(open_parquet_source(path)).metadata or {}
