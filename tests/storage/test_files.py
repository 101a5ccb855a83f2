"""Outputs of stages: complete or absent, kept where nothing has changed."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dask_dedup.errors import DamagedError
from dask_dedup.storage.files import (
    digest_of,
    open_once,
    read_arrays,
    read_frame,
    read_json,
    write_arrays,
    write_aside,
    write_frame,
    write_json,
)


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- write_aside ----------------------------------------------------------------------------------


def test_write_aside_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with write_aside(target) as temporary:
        temporary.write_text("done")
        assert temporary.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "done"
    assert files_under(tmp_path) == ["deep/a.txt"]


def test_write_aside_failure_between_write_and_rename_leaves_absent(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_aside(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert files_under(tmp_path) == []


def test_write_aside_failure_keeps_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), write_aside(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt").read_text() == "old"


# --- JSON, frames, digests ------------------------------------------------------------------------


def test_write_arrays_holds_those_arrays_and_nothing_else(tmp_path):
    arrays = {"rows": np.arange(6, dtype="f4").reshape(3, 2), "row_ids": np.array([5, 3, 1])}
    write_arrays(tmp_path / "a.safetensors", {"kind": "test"}, **arrays)
    assert load_file(tmp_path / "a.safetensors").keys() == arrays.keys()
    read = read_arrays(tmp_path / "a.safetensors")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_write_arrays_writes_no_pickle(tmp_path):
    with pytest.raises(SafetensorError, match="object"):
        write_arrays(tmp_path / "a.safetensors", names=np.array(["a", None], object))
    assert files_under(tmp_path) == []


@pytest.mark.parametrize("position", [3, 20, 60, -30, -5])
def test_read_arrays_of_a_flipped_bit_is_damaged(tmp_path, position):
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"kind": "test"}, rows=np.arange(60.0), row_ids=np.arange(9))
    content = bytearray(path.read_bytes())
    content[position] ^= 2
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"a\.safetensors: is damaged"):
        read_arrays(path)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_read_frame_of_a_flipped_bit_in_a_page_is_damaged(tmp_path, part):
    path = tmp_path / "a.parquet"
    rng = np.random.default_rng(0)
    write_frame(path, pd.DataFrame({"x": rng.normal(size=5_000), "y": rng.integers(0, 9, 5_000)}))
    content = bytearray(path.read_bytes())
    content[int(part * (len(content) - 1_500))] ^= 2  # before the footer
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"a\.parquet: is damaged \(.*(CRC|integrity)"):
        read_frame(path)


def test_read_json_of_a_changed_digit_is_none(tmp_path):
    write_json(tmp_path / "a.json", {"rows": 1234, "more": [1.5, None, "x"]})
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace("1234", "1235"))
    assert read_json(tmp_path / "a.json") is None


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"[1, 2"])
def test_read_json_damaged_or_missing_is_none(tmp_path, content):
    assert read_json(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_write_json_reads_back(tmp_path):
    content = {"text": "über 🦆\n", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


def test_write_json_of_what_json_cannot_say_leaves_absent(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert files_under(tmp_path) == []


def test_write_frame_keeps_schema_and_no_notes_of_pandas(tmp_path):
    frame = pd.DataFrame(
        {"src": np.array([3, 1]), "x": np.array([0.5, 1], np.float32)}, index=[7, 8]
    )
    write_frame(tmp_path / "a.parquet", frame)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema == pa.schema([("src", pa.int64()), ("x", pa.float32())])
    assert table.schema.metadata is None
    assert table.to_pydict() == {"src": [3, 1], "x": [0.5, 1.0]}


def test_write_frame_empty_keeps_the_schema(tmp_path):
    schema = pa.schema([("row_id", pa.int64()), ("tags", pa.list_(pa.string()))])
    write_frame(tmp_path / "a.parquet", schema.empty_table())
    assert pq.read_table(tmp_path / "a.parquet").schema == schema


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text()))
def test_digest_of_does_not_depend_on_the_order_of_keys(settings):
    assert digest_of(settings) == digest_of(dict(reversed(settings.items())))


def test_digest_of_changes_with_any_value():
    variants = [{}, {"a": 1}, {"a": 2}, {"a": None}, {"b": 1}, {"a": {"b": 1}}, {"a": 1, "b": 1}]
    assert len({digest_of(settings) for settings in variants}) == len(variants)


def test_open_once_reads_a_file_once_until_it_changes(tmp_path):
    opened = []

    def load(path):
        opened.append(path)
        return (tmp_path / "model").read_text()

    (tmp_path / "model").write_text("one")
    assert [open_once(load, tmp_path / "model") for _ in range(3)] == ["one"] * 3
    assert len(opened) == 1
    with write_aside(tmp_path / "model") as temporary:
        temporary.write_text("two")
    assert open_once(load, tmp_path / "model") == "two"


def test_open_once_of_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_once(lambda path: open(path).close(), tmp_path / "none")


def test_write_aside_where_files_cannot_be_made_is_not_a_full_disk():
    """/proc has no room, and is no disk."""
    with pytest.raises(OSError) as error, write_aside(Path("/proc/x.csv")) as aside:
        aside.write_text("a")
    assert error.value.errno in (errno.ENOENT, errno.EACCES)
