"""Rows that are slow to read singly, copied one after another: a file for each span.

The join and the clusters read full rows singly, by position. Of a parquet column each read costs
the decoding of a chunk. Of tens of thousands of small files each read of a few rows costs the
opening of one, in every task anew: what grows with parts times tasks. So these are copied once, in
one sequential pass; what the input has in large ``.npy`` files stays where it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.parts import Part
from dask_dedup.data.spans import Span, cut_spans, packed_spans
from dask_dedup.pipeline.job import Job, conserve
from dask_dedup.pipeline.stages import UNPACK
from dask_dedup.runtime.executor import OnWorker

__all__ = ["pack_rows"]


def pack_rows(job: Job) -> Dataset:
    """Return the data set with its embeddings where single rows are read fast; computes.

    That of the job itself, if nothing is to be copied.
    """
    spans = cut_spans(job.data.parts)
    packed = packed_spans(spans)
    if not packed:
        return job.data
    stage = job.stage(UNPACK)
    paths = {span.index: stage.folder / f"{span.name}.rows" for span in packed}
    tasks = {span.name: (span, paths[span.index]) for span in packed}
    with job.timed(UNPACK):
        records = job.run_stage(
            stage, OnWorker("dask_dedup.pipeline.stage_tasks", "pack_span"), tasks
        )
    conserve(UNPACK.name, sum(r["rows"] for r in records), sum(span.rows for span in packed))
    parts: list[Part] = []
    for span in spans:
        path = paths.get(span.index)
        parts += span.parts if path is None else _moved(span, str(path))
    return replace(job.data, parts=tuple(parts))


def _moved(span: Span, path: str) -> list[Part]:
    """Return the parts of a span as `dask_dedup.pipeline.stage_tasks.pack_span` writes them."""
    moved, offset = [], 0
    for part in span.parts:
        file = part.embeddings
        dtype = np.dtype(file.dtype).newbyteorder("=")
        file = replace(
            file,
            path=path,
            dtype=dtype.str,
            data_offset=offset,
            fortran_order=False,
            column=None,
        )
        moved.append(replace(part, embeddings=file))
        offset += file.rows * file.dim * dtype.itemsize
    return moved
