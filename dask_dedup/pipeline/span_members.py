"""The rows of one span that are in clusters, as the last stages read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dask_dedup.data.finder_files import FinderFiles
from dask_dedup.data.spans import Span
from dask_dedup.paths import AnyPath
from dask_dedup.results.members import no_members, with_witnesses
from dask_dedup.results.roles import UNWANTED
from dask_dedup.results.witness_files import read_dropped
from dask_dedup.storage.files import read_frame

__all__ = ["SpanSources", "labels_path", "read_members", "unwanted_alone"]


@dataclass(frozen=True)
class SpanSources:
    """Where it is written what becomes of the rows.

    Attributes
    ----------
    compared : AnyPath
        Folder of the LABELS with similarities.
    threshold : float
    dropped : sequence of AnyPath, optional
        Files of the rows that have a witness other than their representative; None: there are no
        others.
    settled : sequence of AnyPath
        Files of the rows whose witness was settled otherwise.
    carried : sequence of AnyPath
        Files of the values of dropped rows, sorted by the rows that stay.
    decided : AnyPath, optional
        File of all decisions.
    """

    compared: AnyPath
    threshold: float
    dropped: Sequence[AnyPath] | None = None
    settled: Sequence[AnyPath] = ()
    carried: Sequence[AnyPath] = ()
    decided: AnyPath | None = None


def labels_path(folder: AnyPath, span: Span) -> AnyPath:
    """Return the path of a span's LABELS."""
    return folder / f"labels-{span.index:05d}.parquet"


def read_members(layout: FinderFiles, span: Span, sources: SpanSources) -> pd.DataFrame:
    """Return what `with_witnesses` says of a span's rows in clusters."""
    if not span.rows:
        return no_members()
    reach = span.row_start, span.row_stop
    return with_witnesses(
        read_frame(labels_path(sources.compared, span)).set_index("row_id"),
        None if sources.dropped is None else read_dropped(sources.dropped, *reach),
        sources.threshold,
        read_dropped(sources.settled, *reach) if sources.settled else None,
    )


def unwanted_alone(members: pd.DataFrame, span: Span, decided: AnyPath | None) -> np.ndarray:
    """Return the rows of a span that are in no cluster and are dropped by a decision."""
    if decided is None or not span.rows:
        return np.empty(0, np.int64)
    frame = read_frame(decided)
    own = frame.loc[frame["role"] == UNWANTED, "row_id"].to_numpy()
    own = own[(own >= span.row_start) & (own < span.row_stop)]
    return own[~np.isin(own, members.index.to_numpy())]
