"""How much a task of the results takes at a time: what its memory follows from."""

from __future__ import annotations

__all__ = ["COMPARED_BYTES", "EXPORTED_BYTES", "MATCHED_ROWS", "SCATTERED_ROWS", "WINDOW_ROWS"]

COMPARED_BYTES = 8 << 20  # of rows compared with their representatives
EXPORTED_BYTES = 64 << 20  # of embeddings copied at a time
MATCHED_ROWS = 1_000_000  # of both sides whose keys are compared at a time
SCATTERED_ROWS = 1_000_000  # whose keys are put into buckets at a time
WINDOW_ROWS = 1024  # compared with each other for witnesses: 1 MFLOP a row at 512 dimensions
