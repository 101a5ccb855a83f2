"""Files of a data set: names, headers, reading rows."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.data.dataset import read_dataset
from dask_dedup.data.part_rows import gather_by_row
from dask_dedup.data.parts import (
    EmbeddingFile,
    _gather_rows,
    gather_rows,
    read_npy_header,
    read_rows,
)
from dask_dedup.errors import InputError

DTYPES = ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"]


def made(rows: int, dim: int, dtype: str = "<f4", order: str = "C") -> np.ndarray:
    values = np.random.default_rng(rows * 31 + dim).normal(size=(rows, dim))
    return np.asarray(values, dtype, order)


def saved(path: Path, array: np.ndarray) -> EmbeddingFile:
    np.save(path, array)
    return read_npy_header(str(path))


def write_header(path: Path, header: str, data: bytes = b"", version: tuple = (1, 0)) -> str:
    """Write a .npy file whose header says what it likes."""
    length_bytes = 2 if version == (1, 0) else 4
    text = header.encode("latin1") + b"\n"
    path.write_bytes(
        b"\x93NUMPY" + bytes(version) + len(text).to_bytes(length_bytes, "little") + text + data
    )
    return str(path)


# --- read_npy_header ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_read_npy_header_every_layout_is_understood(tmp_path, dtype, order):
    file = saved(tmp_path / "a.npy", made(5, 3, dtype, order))
    assert (file.rows, file.dim, file.dtype, file.fortran_order) == (5, 3, dtype, order == "F")
    assert os.path.getsize(file.path) - file.data_offset == 15 * np.dtype(dtype).itemsize


@pytest.mark.parametrize("version", [(2, 0), (3, 0)])
def test_read_npy_header_later_versions_are_understood(tmp_path, version):
    array = made(7, 3)
    with open(tmp_path / "a.npy", "wb") as handle:
        np.lib.format.write_array(handle, array, version=version)
    assert (tmp_path / "a.npy").read_bytes()[6] == version[0]
    file = read_npy_header(str(tmp_path / "a.npy"))
    np.testing.assert_array_equal(read_rows(file, 0, 7), array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_read_npy_header_batches_of_one_are_rows(tmp_path, order):
    array = np.asarray(made(7, 3).reshape(7, 1, 3), order=order)
    file = saved(tmp_path / "a.npy", array)
    assert (file.rows, file.dim) == (7, 3)
    np.testing.assert_array_equal(read_rows(file, 2, 6), array[2:6, 0])
    np.testing.assert_array_equal(gather_rows(file, np.array([0, 5])), array[[0, 5], 0])


def test_read_npy_header_trailing_bytes_are_no_error(tmp_path):
    saved(tmp_path / "a.npy", made(5, 3))
    with open(tmp_path / "a.npy", "ab") as handle:
        handle.write(b"more")
    assert read_npy_header(str(tmp_path / "a.npy")).rows == 5


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_read_npy_header_object_array_is_refused_and_never_unpickled(tmp_path):
    exploded = tmp_path / "exploded"
    array = np.empty((2, 2), object)
    array[:] = _Bomb(exploded)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: holds Python objects, which are never unpickle"):
        read_npy_header(str(tmp_path / "a.npy"))
    assert not exploded.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)[0, 0].close()  # the bomb is live
    assert exploded.exists()


def test_read_npy_header_bare_pickle_is_refused_and_never_unpickled(tmp_path):
    exploded = tmp_path / "exploded"
    (tmp_path / "a.npy").write_bytes(pickle.dumps(_Bomb(exploded)))
    with pytest.raises(InputError, match=r"a\.npy: expected a \.npy file"):
        read_npy_header(str(tmp_path / "a.npy"))
    assert not exploded.exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 3), np.int64), "expected float16, float32 or float64 values, got int64"),
        (np.zeros((4, 3), np.uint8), "got uint8"),
        (np.zeros((4, 3), np.complex64), "got complex64"),
        (np.zeros((4, 3), np.longdouble), "got float128"),
        (np.zeros((4, 3), "S4"), r"got \|S4"),
        (np.zeros(4, [("a", "f4"), ("b", "f4")]), "expected float16, float32 or float64 values"),
        (np.zeros(4), r"expected an array of shape \(rows, dim\), got shape \(4,\)"),
        (np.zeros(()), r"got shape \(\)"),
        (np.zeros((4, 3, 2)), r"got shape \(4, 3, 2\)"),
        (np.zeros((4, 0)), "dimension 0"),
    ],
)
def test_read_npy_header_wrong_array_is_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=rf"a\.npy: .*{message}"):
        read_npy_header(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("shape", ["(-2, 3)", "(2, -3)", "(-2, -3)"])
def test_read_npy_header_negative_shape_is_refused(tmp_path, shape):
    path = write_header(
        tmp_path / "a.npy",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}",
        b"0" * 99,
    )
    with pytest.raises(InputError, match="expected an array of shape"):
        read_npy_header(path)


@pytest.mark.parametrize("kept_bytes", [1, 6, 9, 40, 127])
def test_read_npy_header_cut_header_is_refused(tmp_path, kept_bytes):
    saved(tmp_path / "a.npy", made(5, 3))
    os.truncate(tmp_path / "a.npy", kept_bytes)
    with pytest.raises(InputError, match=r"a\.npy: expected a \.npy file, but its header cannot"):
        read_npy_header(str(tmp_path / "a.npy"))


def test_read_npy_header_cut_data_is_refused_with_both_sizes(tmp_path):
    file = saved(tmp_path / "a.npy", made(5, 3))
    os.truncate(file.path, file.data_offset + 5 * 3 * 4 - 1)
    with pytest.raises(
        InputError,
        match=r"a\.npy: truncated\. 5 rows of dimension 3 \(float32\) need 188 bytes, but the file "
        r"has 187",
    ):
        read_npy_header(file.path)


def test_read_npy_header_huge_shape_is_refused_without_allocating(tmp_path):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 9999999999999)}"
    with pytest.raises(InputError, match="truncated"):
        read_npy_header(write_header(tmp_path / "a.npy", header))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x00" * 500, b"PAR1" * 40])
def test_read_npy_header_other_content_is_refused(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: expected a \.npy file"):
        read_npy_header(str(tmp_path / "a.npy"))


def test_read_npy_header_unknown_version_is_refused(tmp_path):
    path = write_header(tmp_path / "a.npy", "{}", version=(9, 0))
    with pytest.raises(InputError, match=r"format version 1 to 3, got 9\.0\. Write it ag") as error:
        read_npy_header(path)
    assert "damaged" not in str(error.value)


def test_read_npy_header_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.npy: cannot be read \(No such file"):
        read_npy_header(str(tmp_path / "gone.npy"))


@given(data=st.data())
def test_read_npy_header_mutated_bytes_give_input_error_or_a_header_that_holds(
    tmp_path_factory, data
):
    path = tmp_path_factory.getbasetemp() / "mutated.npy"
    np.save(path, made(5, 3, data.draw(st.sampled_from(DTYPES))))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(100, len(content)))])
    try:
        file = read_npy_header(str(path))
    except InputError as error:
        assert str(path) in str(error)
        return
    expected = np.load(path, allow_pickle=False)
    assert file.rows >= 0
    assert file.dim > 0
    np.testing.assert_array_equal(read_rows(file, 0, file.rows), expected)


@given(content=st.binary(max_size=300))
def test_read_npy_header_random_bytes_after_magic_give_only_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.npy"
    path.write_bytes(b"\x93NUMPY" + content)
    with pytest.raises(InputError, match=r"random\.npy: "):
        read_npy_header(str(path))


# --- reading rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("start", "stop"), [(0, 11), (3, 7), (0, 0), (10, 11)])
def test_read_rows_any_layout_gives_the_stored_values(tmp_path, dtype, order, start, stop):
    array = made(11, 3, dtype, order)
    block = read_rows(saved(tmp_path / "a.npy", array), start, stop)
    np.testing.assert_array_equal(block, array[start:stop])
    assert block.dtype == np.dtype(dtype).newbyteorder("=")
    assert block.flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_gather_rows_any_layout_gives_the_stored_values(tmp_path, dtype, order):
    array = made(11, 3, dtype, order)
    positions = np.array([0, 2, 3, 10])
    rows = gather_rows(saved(tmp_path / "a.npy", array), positions)
    np.testing.assert_array_equal(rows, array[positions])
    assert rows.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("order", ["C", "F"])
def test_gather_rows_more_than_one_mapping_gives_all(tmp_path, order):
    array = made(101, 3, order=order)
    positions = np.arange(1, 101, 2)
    rows = _gather_rows(saved(tmp_path / "a.npy", array), positions, 3 * 4200)
    np.testing.assert_array_equal(rows, array[positions])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("read", [read_rows, gather_rows])
def test_read_file_that_has_become_shorter_is_refused(tmp_path, order, read):
    file = saved(tmp_path / "a.npy", made(5, 3, order=order))
    os.truncate(file.path, file.data_offset + 17)
    arguments = (0, 5) if read is read_rows else (np.array([0, 4]),)
    with pytest.raises(InputError, match=r"a\.npy: changed while it was being read; 188 bytes exp"):
        read(file, *arguments)


@pytest.mark.parametrize("read", [read_rows, gather_rows])
def test_read_file_that_is_gone_is_refused(tmp_path, read):
    file = saved(tmp_path / "a.npy", made(5, 3))
    os.unlink(file.path)
    arguments = (0, 5) if read is read_rows else (np.array([0, 4]),)
    with pytest.raises(InputError, match=r"a\.npy: cannot be read \(No such file"):
        read(file, *arguments)


def test_gather_by_row_parts_of_all_layouts_equal_concatenation(tmp_path, write_dataset):
    arrays = [
        made(3, 5, "<f2"),
        made(0, 5),
        made(7, 5, ">f8", "F"),
        made(2, 5, ">f4"),
        made(11, 5, "<f4", "F"),
    ]
    parts = read_dataset(write_dataset(tmp_path / "d", arrays)).parts
    whole = np.concatenate([array.astype(np.float64) for array in arrays])
    row_ids = np.array([0, 2, 3, 9, 10, 11, 12, 22])
    np.testing.assert_array_equal(gather_by_row(parts, row_ids), whole[row_ids])


def test_gather_by_row_one_part_keeps_its_dtype(tmp_path, write_dataset):
    parts = read_dataset(
        write_dataset(tmp_path / "d", [made(3, 5, "<f2"), made(7, 5, "<f8")])
    ).parts
    assert gather_by_row(parts, np.array([1])).dtype == np.float16


def test_gather_by_row_no_rows_gives_an_empty_array(tmp_path, write_dataset):
    parts = read_dataset(write_dataset(tmp_path / "d", [made(3, 5)])).parts
    assert gather_by_row(parts, np.empty(0, np.int64)).shape == (0, 5)
