"""How much a task of the results takes at a time: what its memory follows from."""

from __future__ import annotations

__all__ = ["COMPARED_BYTES", "EXPORTED_BYTES", "MATCHED_ROWS", "SCATTERED_ROWS"]

COMPARED_BYTES = 8 << 20  # of rows compared with their representatives
EXPORTED_BYTES = 64 << 20  # of embeddings copied at a time
MATCHED_ROWS = 1_000_000  # of both sides whose keys are compared at a time
SCATTERED_ROWS = 1_000_000  # whose keys are put into buckets at a time
