"""Choosing how forests are merged: streamed through an array over all rows, or in a tree."""

from __future__ import annotations

import logging

from dask_dedup.errors import CapacityError

__all__ = ["BAND_BYTES", "BAND_EDGES", "choose_merge", "row_bytes"]

BAND_BYTES = {4: 48, 8: 64}  # per edge of a band, by bytes per row id (40 were measured for 4)
BAND_EDGES = 1 << 25  # 1.6 GB
_TREE_BYTES = 120  # per forest row in the last merge of a tree
_NARROW_ROWS = 1 << 32  # up to here a row id fits into 4 bytes
_TREE_EDGE_ROWS = 500  # an edge takes 2 us longer in a tree, a row of the arrays 4 ns (measured)

_log = logging.getLogger(__name__)


def choose_merge(forest_edges: int, rows: int, memory_bytes: int) -> str:
    """Choose how forests are merged, and log why.

    Parameters
    ----------
    forest_edges : int
        Edges of all forests together.
    rows : int
        Rows of the data set.
    memory_bytes : int
        What one worker has.

    Returns
    -------
    str
        "stream" where the arrays over all rows fit, unless there are so few edges that a tree is
        merged before such an array is filled; else "tree".

    Raises
    ------
    CapacityError
        Where neither fits.
    """
    tree = _TREE_BYTES * forest_edges
    id_bytes = row_bytes(rows)
    band = BAND_BYTES[id_bytes] * min(forest_edges, BAND_EDGES)
    stream = id_bytes * rows + max(band, id_bytes * rows)  # labels and sizes are two arrays
    fits = {"tree": 2 * tree <= memory_bytes, "stream": stream <= memory_bytes}
    quick = "stream" if forest_edges * _TREE_EDGE_ROWS >= rows else "tree"
    other = "tree" if quick == "stream" else "stream"
    figures = (
        f"{forest_edges:,} forest edges over {rows:,} rows: streaming takes "
        f"{stream / 1e9:.2f} GB; merging in a tree takes {tree / 1e9:.2f} GB, of at most half of a "
        f"worker's memory; a worker has {memory_bytes / 1e9:.2f} GB"
    )
    for choice, reason in ((quick, "the quicker way"), (other, f"not enough for a {quick}")):
        if fits[choice]:
            _log.debug("forests merge in a %s, %s (%s)", choice, reason, figures)
            return choice
    raise CapacityError(
        f"{figures}. Give each worker at least {min(2 * tree, stream) / 1e9:.2f} GB with --memory "
        f"(in Python: memory_bytes), or use fewer workers."
    )


def row_bytes(rows: int) -> int:
    """Return the bytes of a row id in an array over so many rows."""
    return 4 if rows <= _NARROW_ROWS else 8
