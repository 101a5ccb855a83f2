"""How much a task of the results takes at a time: what its memory follows from."""

from __future__ import annotations

__all__ = ["COMPARED_BYTES"]

COMPARED_BYTES = 8 << 20  # of rows compared with their representatives
