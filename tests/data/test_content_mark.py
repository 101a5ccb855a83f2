"""A mark of a file's content: which changes with the same size and time it notices."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dask_dedup.data.content_mark import content_mark


def written(path, content: bytes) -> str:
    """Write a file anew with the time that it had before."""
    status = os.stat(path) if path.exists() else None
    path.write_bytes(content)
    if status is not None:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return content_mark(str(path))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 40_960, 40_961, 45_000, 1_000_003])
def test_content_mark_is_the_same_for_the_same_content_and_another_for_another(tmp_path, size):
    path = tmp_path / "a.npy"
    content = np.random.default_rng(size).bytes(size)
    mark = written(path, content)
    assert written(path, content) == mark
    if size:
        assert written(path, bytes(255 - byte for byte in content)) != mark
    assert written(path, content + b"x") != mark


def test_content_mark_of_a_small_file_changes_with_any_byte(tmp_path):
    content = np.random.default_rng(0).bytes(40_960)
    mark = written(tmp_path / "a", content)
    for position in range(0, len(content), 97):
        changed = bytearray(content)
        changed[position] ^= 1
        assert written(tmp_path / "a", bytes(changed)) != mark, position


def test_content_mark_of_reversed_rows_is_another(tmp_path):
    rows = np.random.default_rng(1).normal(size=(5000, 16)).astype("<f4")
    mark = written(tmp_path / "a", rows.tobytes())
    assert written(tmp_path / "a", rows[::-1].tobytes()) != mark


def test_content_mark_notices_any_contiguous_quarter(tmp_path):
    """By its eight blocks, one in each eighth: a quarter holds a whole eighth, or ends a file."""
    content = np.random.default_rng(2).bytes(400_000)
    mark = written(tmp_path / "a", content)
    for start in range(0, 300_001, 6_007):
        changed = bytearray(content)
        changed[start : start + 100_000] = bytes(100_000)
        assert written(tmp_path / "a", bytes(changed)) != mark, start


def test_content_mark_does_not_depend_on_the_folder(tmp_path):
    content = np.random.default_rng(3).bytes(300_000)
    (tmp_path / "other").mkdir()
    assert written(tmp_path / "a", content) == written(tmp_path / "other" / "a", content)


def test_content_mark_of_what_is_not_there_or_remote_is_empty(tmp_path):
    assert content_mark(str(tmp_path / "gone")) == content_mark("s3://bucket/a.npy") == ""
