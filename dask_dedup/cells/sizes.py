"""How many cells, visits of a row, rows and tasks of the training, where no setting says."""

from __future__ import annotations

__all__ = ["FINE_TASKS", "default_cells", "default_visits"]

FINE_TASKS = 16  # the coarse cells are divided in so many tasks


def default_cells(rows: int) -> int:
    """Return the number of cells for so many rows: 2,500 at 10^6.

    With assignment at 2 * sqrt(probes * C) and the join at rows * visits / C products a row, the
    sum is least where C grows as rows^(2/3). Below 10^6 rows the products cost little: C falls
    faster (rows^1.3), so that small data sets are searched nearly exhaustively.
    """
    scale = rows / 1e6
    return max(1, round(2500 * (scale ** (2 / 3) if scale > 1 else scale**1.3)))


def default_visits(rows: int) -> float:
    """Return the visits for so many rows: 4.5 up to 10^6, 6.4 at 10^7, at most 16.

    Where there are more cells, a boundary is more often between the rows of a pair.
    """
    return min(16.0, 4.5 * max(1.0, rows / 1e6) ** 0.15)
