from itertools import pairwise

import numpy as np
import pytest

from dask_dedup.data.parts import Part, read_npy_header
from dask_dedup.data.spans import Span
from dask_dedup.vectors.equal_rows import EqualRows, first_in_groups


def first_of_equals(path, values, block, usable=None):
    np.save(path, values)
    usable = np.ones(len(values), np.bool_) if usable is None else usable
    part = Part(0, 0, "a.parquet", read_npy_header(str(path)))
    rows = EqualRows(Span(0, (part,)))
    return np.concatenate(
        [
            rows.look(start, values[start : start + block], usable[start : start + block])
            for start in range(0, len(values), block)
        ]
    )


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize(("dtype", "dim"), [("f2", 3), ("f4", 5), ("f8", 2)])
def test_look_names_the_first_row_of_equal_bytes_for_any_blocks(tmp_path, block, dtype, dim):
    values = np.random.default_rng(1).integers(0, 3, (200, dim)).astype(dtype)
    first = {}
    expected = [first.setdefault(row.tobytes(), i) for i, row in enumerate(values)]
    assert first_of_equals(tmp_path / "a.npy", values, block).tolist() == expected


def test_look_equal_hashes_alone_do_not_make_rows_equal(tmp_path, same_hash):
    row = np.arange(1, 9, dtype="f4")
    values = np.stack([row, same_hash(row), row])
    assert first_of_equals(tmp_path / "a.npy", values, 3).tolist() == [0, 1, 0]


def test_look_unusable_rows_equal_nothing(tmp_path):
    values = np.zeros((3, 2), "f4")
    usable = np.array([True, False, True])
    assert first_of_equals(tmp_path / "a.npy", values, 2, usable).tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", ["u4", "u8"])
def test_first_in_groups_is_the_first_of_the_hash_between_two_bounds(dtype):
    rng = np.random.default_rng(3)
    top = np.iinfo(dtype).max
    hashes = rng.choice(np.array([0, 1, 7, top // 2 + 1, top - 1, top], dtype), 300)
    bounds = np.array([0, 0, 1, 90, 90, 217, 300, 300])
    expected = []
    for start, stop in pairwise(bounds.tolist()):
        first = {}
        expected += [first.setdefault(int(hashes[i]), i) for i in range(start, stop)]
    assert first_in_groups(hashes, bounds).tolist() == expected
    assert first_in_groups(hashes[:0], np.array([0, 0])).tolist() == []
