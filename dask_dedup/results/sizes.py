"""How much a task of the results takes at a time: what its memory follows from."""

from __future__ import annotations

__all__ = [
    "COMPARED_BYTES",
    "EXPORTED_BYTES",
    "GROUPED_ROWS",
    "GROUPED_TASKS",
    "MATCHED_ROWS",
    "PAGE_ROWS",
    "PAGE_TASKS",
    "SCATTERED_ROWS",
    "WINDOW_ROWS",
    "cluster_buckets",
]

COMPARED_BYTES = 8 << 20  # of rows compared with their representatives
EXPORTED_BYTES = 64 << 20  # of embeddings copied at a time
GROUPED_ROWS, GROUPED_TASKS = 8192, 64  # below the threshold: of a task at least; tasks at most
MATCHED_ROWS = 1_000_000  # of both sides whose keys are compared at a time
PAGE_ROWS, PAGE_TASKS = 500_000, 256  # of a pass of the page: of a task at least; tasks at most
SCATTERED_ROWS = 1_000_000  # whose keys are put into buckets at a time
WINDOW_ROWS = 1024  # compared with each other for witnesses: 1 MFLOP a row at 512 dimensions

#: Rows of a bucket of clusters: fewer where that makes more tasks, up to so many.
_BUCKET_ROWS, _LEAST_BUCKET_ROWS, _FEW_BUCKETS = 1_000_000, 1 << 16, 64


def cluster_buckets(edges: int) -> int:
    """Return the number of buckets for the clusters of so many edges of a forest."""
    # A cluster has an edge less than rows: there are at most twice as many rows as edges.
    least = min(max(-(-edges // _LEAST_BUCKET_ROWS), 1), _FEW_BUCKETS)
    return max(least, -(-edges // _BUCKET_ROWS))
