"""Cutting the cells into join tasks: by their sizes alone, whatever the workers.

A cell with more entries than four tiles is cut into tiles, one task per pair of tiles.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

from dask_dedup.cells.entries import read_cell_counts
from dask_dedup.cells.layout_files import CellLayout

__all__ = [
    "LEAST_ENTRIES",
    "LEAST_TASKS",
    "MOST_ENTRIES",
    "TILE_ROWS",
    "CellGroup",
    "plan_groups",
]

TILE_ROWS = 32_768  # entries of a tile of a large cell
LEAST_TASKS = 64  # where there are enough entries for as many
LEAST_ENTRIES = 16_384  # of a task
MOST_ENTRIES = 1 << 18  # of a task: the full rows of more would not be kept together


class CellGroup(NamedTuple):
    """The cells of one join task, or one pair of tiles of a cell that is too large for one.

    ``cell_start`` to ``cell_stop``; ``left`` and ``right`` are ranges of the cell's entries, None
    for whole cells. ``cost`` is the number of products.
    """

    number: int
    cell_start: int
    cell_stop: int
    left: tuple[int, int] | None
    right: tuple[int, int] | None
    cost: float


def plan_groups(layout: CellLayout, tile_rows: int = TILE_ROWS) -> list[CellGroup]:
    """Cut the cells into tasks of similar size, the costliest first.

    The cut depends on the data and on ``tile_rows`` alone, never on the number of workers.
    """
    entries = read_cell_counts(layout)
    products = (entries.astype(float) ** 2).tolist()
    entries_per_group = int(np.clip(entries.sum() // LEAST_TASKS, LEAST_ENTRIES, MOST_ENTRIES))
    cost_per_group = max(sum(products) / LEAST_TASKS, float(tile_rows) ** 2)
    groups: list[CellGroup] = []
    start, gathered, cost = 0, 0, 0.0
    for cell in range(layout.cells):
        large = entries[cell] > 4 * tile_rows
        full = (
            gathered + entries[cell] > entries_per_group or cost + products[cell] > cost_per_group
        )
        if gathered and (large or full):
            groups.append(CellGroup(len(groups), start, cell, None, None, cost))
            start, gathered, cost = cell, 0, 0.0
        if large:
            tiles = [
                (i, min(i + tile_rows, int(entries[cell])))
                for i in range(0, int(entries[cell]), tile_rows)
            ]
            groups += [
                CellGroup(number, cell, cell + 1, left, right, float(tile_rows) ** 2)
                for number, (left, right) in enumerate(
                    combinations_with_replacement(tiles, 2), len(groups)
                )
            ]
            start = cell + 1
        else:
            gathered += int(entries[cell])
            cost += products[cell]
    if gathered:
        groups.append(CellGroup(len(groups), start, layout.cells, None, None, cost))
    return sorted(groups, key=_falling_cost)


def _falling_cost(group: CellGroup) -> tuple[float, int]:
    return -group.cost, group.number
