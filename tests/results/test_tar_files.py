"""Tars that are damaged: whatever Python's reader takes for their end is noticed."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pytest

from dask_dedup.errors import InputError, UnreadableError
from dask_dedup.results.tar_files import SampleTar, expand_braces

KEYS = [f"{i:09d}" for i in range(9)]


@pytest.fixture
def content():
    """A tar of nine samples of one file, and where its members begin."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for key in KEYS:
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(range(100)) * 7))
    with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as tar:
        return target.getvalue(), [member.offset for member in tar]


def keys_of(path, content):
    path.write_bytes(content)
    return [key for batch in SampleTar(str(path)).keys(4) for key in batch.to_pylist()]


@pytest.mark.parametrize("fault", ["flipped header", "cut in a header", "another behind it"])
def test_keys_of_a_tar_that_ends_too_early_is_refused(tmp_path, content, fault):
    whole, starts = content
    if fault == "flipped header":
        whole = bytearray(whole)
        whole[starts[5] + 3] ^= 1
    elif fault == "cut in a header":
        whole = whole[: starts[5] + 100]
    else:
        whole = whole * 2
    with pytest.raises(
        UnreadableError, match=r"a\.tar: cannot be read as a tar from byte [\d,]+ on"
    ):
        keys_of(tmp_path / "a.tar", bytes(whole))


def test_keys_are_those_of_webdataset(tmp_path):
    """With folders, up to the first dot behind them; UTF-8 or not."""
    keys = {
        "a/1.jpg": b"a/1",
        "a.b/1.seg.png": b"a.b/1",
        "./c/1.jpg": b"./c/1",
        "2.jpg": b"2",
        "d/\udcff.jpg": b"d/\xff",
    }
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in keys:
            tar.addfile(tarfile.TarInfo(name))
    (found,) = SampleTar(str(tmp_path / "a.tar")).keys(9)
    assert found.view(pa.large_binary()).to_pylist() == [*keys.values()]


def test_keys_and_samples_of_a_tar_with_or_without_its_end(tmp_path, content):
    whole, _ = content
    for end in (len(whole), len(whole.rstrip(b"\0")) // 512 * 512 + 512):
        assert keys_of(tmp_path / "a.tar", whole[:end]) == KEYS
    SampleTar(str(tmp_path / "a.tar")).write(np.arange(9) % 2 == 0, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert [member.name for member in tar] == [f"{key}.jpg" for key in KEYS[::2]]


def test_expand_braces_counting_down_is_refused():
    with pytest.raises(InputError, match=r"\{00003\.\.00001\} counts down"):
        expand_braces("p/{00003..00001}.tar")
