"""Raw values with checksums: what was written comes back, and nothing else does."""

import numpy as np
import pytest

from dask_dedup.errors import DamagedError
from dask_dedup.storage.sealed_file import read_sealed, sealed_rows, write_sealed, writing_sealed

WORD = np.dtype(np.uint32)


def some_rows(rows, width=19, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, (rows, width), np.uint32)


@pytest.mark.parametrize("rows", [0, 1, 861, 862, 863, 2586, 10_007])  # 862 rows are a block
def test_read_sealed_any_range_is_the_slice(tmp_path, rows):
    written = some_rows(rows)
    write_sealed(tmp_path / "a", written)
    assert sealed_rows(tmp_path / "a", WORD, 19) == rows
    rng = np.random.default_rng(1)
    for start, stop in [(0, rows), *np.sort(rng.integers(0, rows + 1, (50, 2)), axis=1).tolist()]:
        for known in (None, rows):
            found = read_sealed(tmp_path / "a", WORD, 19, start, stop - start, known)
            np.testing.assert_array_equal(found, written[start:stop])


@pytest.mark.parametrize("cuts", [[], [1], [861, 863], [5, 5, 9_999], list(range(0, 10_000, 400))])
def test_writing_sealed_in_pieces_is_the_same_file(tmp_path, cuts):
    written = some_rows(10_007)
    write_sealed(tmp_path / "whole", written)
    with writing_sealed(tmp_path / "pieces", WORD, 19) as out:
        for piece in np.split(written, cuts):
            out.add(piece)
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


def test_sealed_one_dimension_is_rows_of_one_value(tmp_path):
    values = np.arange(20_001, dtype=np.int64) ** 2
    write_sealed(tmp_path / "a", values)
    found = read_sealed(tmp_path / "a", values.dtype, 1, 8000, 9000)
    np.testing.assert_array_equal(found[:, 0], values[8000:17_000])


def test_read_sealed_every_flipped_bit_is_found(tmp_path):
    """Whichever byte it is in: of the head, of a block, of a checksum."""
    path = tmp_path / "a"
    write_sealed(path, some_rows(2000))
    good = path.read_bytes()
    rng = np.random.default_rng(2)
    positions = [*range(64), *rng.integers(64, len(good), 100).tolist(), len(good) - 1]
    for position in positions:
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(DamagedError, match="not what was written") as caught:
            read_sealed(path, WORD, 19, 0, 2000)
        assert caught.value.path == str(path)


def test_read_sealed_damage_outside_the_range_is_not_looked_at(tmp_path):
    path, written = tmp_path / "a", some_rows(5000)
    write_sealed(path, written)
    bad = bytearray(path.read_bytes())
    bad[-10] ^= 1
    path.write_bytes(bad)
    np.testing.assert_array_equal(read_sealed(path, WORD, 19, 0, 800), written[:800])


def test_read_sealed_zeroed_page_exchanged_blocks_and_other_sizes_are_found(tmp_path):
    path = tmp_path / "a"
    write_sealed(path, some_rows(3000))
    good = path.read_bytes()
    stride = 862 * 76 + 4
    blocks = [good[64 + i * stride : 64 + (i + 1) * stride] for i in range(4)]
    for bad, words in [
        (good[:4096] + bytes(4096) + good[8192:], "block 0 is not"),
        (good[:64] + blocks[1] + blocks[0] + b"".join(blocks[2:]), "block 0 is not"),
        (good[:-1], "bytes; its 3000 rows take"),
        (good + b"x", "bytes; its 3000 rows take"),
        (good[:30], "ends at byte 30"),
        (b"", "ends at byte 0"),
    ]:
        path.write_bytes(bad)
        with pytest.raises(DamagedError, match=words):
            read_sealed(path, WORD, 19, 0, 3000)
    path.unlink()
    with pytest.raises(DamagedError, match="a: is missing"):
        read_sealed(path, WORD, 19, 0, 3000)


def test_read_sealed_counts_are_checked_before_memory_is_taken(tmp_path):
    """A terabyte is asked for: of a file that has 76 kB, and by a head that lies with care."""
    import zlib

    path = tmp_path / "a"
    write_sealed(path, some_rows(1000))
    with pytest.raises(DamagedError, match="has 1000 rows, and was asked for 0 to 10000000000"):
        read_sealed(path, WORD, 19, 0, 10**10)
    with pytest.raises(DamagedError, match="has 1000 rows instead of 10000000000"):
        read_sealed(path, WORD, 19, 0, 10, 10**10)
    content = bytearray(path.read_bytes())
    content[24:32] = (10**10).to_bytes(8, "little")
    content[60:64] = zlib.crc32(bytes(content[:60])).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="its 10000000000 rows take 76"):
        read_sealed(path, WORD, 19, 0, 10**10)


def test_read_sealed_another_kind_of_rows_is_refused(tmp_path):
    write_sealed(tmp_path / "a", some_rows(10))
    with pytest.raises(DamagedError, match="holds rows of 19 <u4 instead of 1 <i8"):
        read_sealed(tmp_path / "a", np.dtype(np.int64), 1, 0, 3)
