import numpy as np
import pandas as pd
import pytest

from dask_dedup.errors import DamagedError
from dask_dedup.results.witness import Witnesses
from dask_dedup.results.witness_files import dropped_rows, read_dropped, write_dropped


@pytest.fixture
def written(tmp_path):
    """Two files of rows that are dropped, several row groups each."""
    rng = np.random.default_rng(0)
    frames = []
    for number, row_ids in enumerate(np.split(rng.permutation(100), [40])):
        witness = np.where(row_ids % 3, row_ids - row_ids % 3, row_ids)
        found = Witnesses(witness, rng.random(len(row_ids)).astype("f4"))
        frames.append(dropped_rows(row_ids, found))
        write_dropped(frames[-1], tmp_path / f"{number}.parquet", group_rows=7)
    return [tmp_path / "0.parquet", tmp_path / "1.parquet"], frames


def test_read_dropped_returns_the_rows_between(written):
    paths, frames = written
    whole = pd.concat(frames).sort_values("row_id")
    assert whole["row_id"].tolist() == [row for row in range(100) if row % 3]
    for start, stop in ((0, 100), (0, 1), (17, 18), (30, 61), (99, 100), (100, 200)):
        expected = whole[(whole["row_id"] >= start) & (whole["row_id"] < stop)]
        found = read_dropped(paths, start, stop)
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))


def test_read_dropped_of_files_without_rows_there_has_the_columns(written, tmp_path):
    paths, frames = written
    write_dropped(frames[0][:0], tmp_path / "none.parquet")
    for some in ([tmp_path / "none.parquet"], [*paths, tmp_path / "none.parquet"]):
        found = read_dropped(some, 100, 200)
        assert len(found) == 0
        assert found.dtypes.tolist() == frames[0].dtypes.tolist()


def test_read_dropped_of_no_file_has_the_columns():
    assert list(read_dropped([], 0, 9)) == ["row_id", "witness_row_id", "witness_similarity"]


def test_read_dropped_names_a_damaged_file(written):
    paths, _ = written
    content = bytearray(paths[1].read_bytes())
    content[20] ^= 255
    paths[1].write_bytes(content)
    with pytest.raises(DamagedError, match=r"1\.parquet"):
        read_dropped(paths, 0, 100)
