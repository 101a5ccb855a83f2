"""Which rows have no usable embedding: from the layout's files, or from the embeddings themselves.

The layout has noted them, and labels that come from it say where it lies. Where they do not say, or
it is gone or of other files, each part's embeddings are read once more: the same rows.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from dask_dedup.cells.layout_files import CellLayout
from dask_dedup.data.dataset import Dataset
from dask_dedup.data.finder_files import FinderFiles, read_invalid
from dask_dedup.data.parts import Part, read_rows
from dask_dedup.graph.origin import Origin
from dask_dedup.paths import as_path
from dask_dedup.storage.objects import exists
from dask_dedup.vectors.unit import prepare_block

__all__ = ["find_layout", "invalid_rows"]

_READ_BYTES = 32 << 20  # of rows looked at at a time


def find_layout(dataset: Dataset, origin: Origin | None) -> CellLayout | None:
    """Return the layout that labels come from, if it is there and is one of this data set."""
    if origin is None:
        return None
    layout = CellLayout(**origin.layout)
    if not exists(as_path(layout.parts_path)) or layout.parts != dataset.filled_parts:
        return None
    return layout


def invalid_rows(part: Part, layout: FinderFiles | None) -> np.ndarray:
    """Return the ``row_id`` of a part's rows without a usable embedding: int64, sorted.

    Parameters
    ----------
    part : Part
        With rows.
    layout : FinderFiles, optional
        What has noted them; without it, the part's embeddings are read.
    """
    if layout is not None:
        starts = [span.row_start for span in layout.spans]
        span = layout.spans[bisect_right(starts, part.row_start) - 1]
        ids = read_invalid(layout, span)["row_id"].to_numpy()
        return ids[(ids >= part.row_start) & (ids < part.row_stop)]
    if part.embeddings.problem is not None:
        return np.arange(part.row_start, part.row_stop)
    step = max(1, _READ_BYTES // (part.embeddings.dim * np.dtype(part.embeddings.dtype).itemsize))
    found = [np.empty(0, np.int64)]
    for start in range(0, part.rows, step):
        block = prepare_block(read_rows(part.embeddings, start, min(start + step, part.rows)))
        found.append(part.row_start + start + np.flatnonzero(block.reason))
    return np.concatenate(found)
