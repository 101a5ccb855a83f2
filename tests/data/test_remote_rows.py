"""Rows of files in a store, against numpy."""

import io

import numpy as np
import pytest
from upath import UPath

from dask_dedup.data.parts import read_npy_header
from dask_dedup.data.remote_rows import fetch_rows, fetch_single_rows
from dask_dedup.errors import InputError

ROWS = np.arange(30_000, dtype=">f4").reshape(6000, 5)  # 20 bytes a row


@pytest.fixture
def stored():
    """A file in fsspec's store in memory."""
    content = io.BytesIO()
    np.save(content, ROWS)
    path = UPath("memory://rows/a.npy")
    path.fs.pipe_file(path.path, content.getvalue())
    yield read_npy_header(str(path))
    path.fs.rm("/rows", recursive=True)


@pytest.mark.parametrize(
    "positions",
    [
        [],
        [5999],
        [0, 1, 2, 3, 4, 5, 6],
        [3, 3, 4, 4, 4],
        [7, 11, 13, 1700, 1701, 5998, 5999],
        range(0, 6000, 7),
        range(6000),
    ],
)
@pytest.mark.parametrize(
    ("gap", "most", "batch"),
    [(128 << 10, 8 << 20, 64 << 20), (0, 8 << 20, 50), (139, 60, 1), (119, 1000, 3000)],
)
def test_fetch_single_rows_are_those_of_numpy(stored, positions, gap, most, batch):
    found = fetch_single_rows(stored, np.array(positions, np.int64), gap, most, batch)
    assert found.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(found, ROWS[list(positions)])


def test_fetch_rows_are_those_of_numpy(stored):
    np.testing.assert_array_equal(fetch_rows(stored, 17, 4711), ROWS[17:4711])


def test_file_that_has_become_shorter_is_named(stored):
    path = UPath(stored.path)
    path.fs.pipe_file(path.path, path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.npy: changed while it was being read"):
        fetch_single_rows(stored, np.array([3, 5999]))
