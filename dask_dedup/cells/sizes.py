"""How many cells, entries and tasks there are, and how much a task takes at a time.

The numbers lie apart from the code that uses them, which takes seconds to load, so that a plan need
not load it.
"""

from __future__ import annotations

__all__ = [
    "BATCH_PAIRS",
    "BLOCK_ROWS",
    "COARSE_SAMPLE",
    "FINE_TASKS",
    "ITERATIONS",
    "LEADER_SAMPLE",
    "MOST_CELLS_PER_ROW",
    "READ_BYTES",
    "default_cells",
    "default_cells_per_row",
]

ITERATIONS = 10  # of k-means
COARSE_SAMPLE = 256  # sample rows per coarse centroid
FINE_TASKS = 16  # the coarse cells are divided in so many tasks
LEADER_SAMPLE = 4096  # rows that leaders of dense groups are chosen from
#: Rows read, projected and assigned at a time: 16 MB at 1,024 dimensions. Four times as many take 5
#: to 10 % longer where all cores are busy, as these share a cache and the memory.
BLOCK_ROWS = 4096
MOST_CELLS_PER_ROW = 16  # at most
BATCH_PAIRS = 1 << 20  # candidates verified at a time
READ_BYTES = 256 << 20  # full rows that a task of the join keeps in memory


def default_cells(rows: int) -> int:
    """Return the number of cells for so many rows: 2,500 at 10^6.

    With assignment at 2 * sqrt(probes * C) and the join at rows * cells per row / C products a row,
    the sum is least where C grows as rows^(2/3). Below 10^6 rows the products cost little: C falls
    faster (rows^1.3), so that small data sets are searched nearly exhaustively.
    """
    scale = rows / 1e6
    return max(1, round(2500 * (scale ** (2 / 3) if scale > 1 else scale**1.3)))


def default_cells_per_row(rows: int) -> float:
    """Return the average cells per row for so many rows: 4.5 up to 10^6, 6.4 at 10^7, at most 16.

    Where there are more cells, a boundary is more often between the rows of a pair.
    """
    return min(float(MOST_CELLS_PER_ROW), 4.5 * max(1.0, rows / 1e6) ** 0.15)
