import pytest

from dask_dedup.cells.sizes import MOST_CELLS_PER_ROW, default_cells, default_cells_per_row


def test_default_cells_grows_slower_than_the_rows():
    sizes = [1, 1000, 10**5, 10**6, 10**7, 2 * 10**9]
    cells = [default_cells(rows) for rows in sizes]
    assert cells[0] == 1
    assert default_cells(10**6) == 2500
    assert cells == sorted(cells)
    assert cells[-1] < 2**31


def test_default_cells_per_row_grow_above_a_million_rows_and_stay_within_their_limit():
    assert [default_cells_per_row(rows) for rows in (1, 10**6)] == [4.5, 4.5]
    assert default_cells_per_row(10**7) == pytest.approx(6.36, abs=0.01)
    assert default_cells_per_row(10**12) == MOST_CELLS_PER_ROW
