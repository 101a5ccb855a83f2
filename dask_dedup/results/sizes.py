"""How much a task of the results takes at a time: what its memory follows from."""

from __future__ import annotations

__all__ = ["COMPARED_BYTES", "WINDOW_ROWS"]

COMPARED_BYTES = 8 << 20  # of rows compared with their representatives
WINDOW_ROWS = 1024  # compared with each other for witnesses: 1 MFLOP a row at 512 dimensions
