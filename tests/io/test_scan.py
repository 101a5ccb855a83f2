"""Which files a data set has, and whether they fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.errors import InputError
from dask_dedup.io.scan import find_files, scan_parts


def made(rows: int, dim: int) -> np.ndarray:
    return np.random.default_rng(rows * 31 + dim).normal(size=(rows, dim)).astype("<f4")


# --- find_files -----------------------------------------------------------------------------------


def test_find_files_numbered_names_come_in_natural_order(tmp_path):
    numbers = [10, 9, 100, 1, 2]
    for number in numbers:
        (tmp_path / f"part_{number}.npy").touch()
    names = [Path(path).name for path in find_files(tmp_path, ".npy")]
    assert names == [f"part_{number}.npy" for number in sorted(numbers)]


def test_find_files_hidden_other_and_folders_are_passed_over(tmp_path):
    for name in (".part_0.npy", "notes.txt", "part_1.npy.tmp", "part_2.npy"):
        (tmp_path / name).touch()
    (tmp_path / "part_3.npy").mkdir()
    assert find_files(tmp_path, ".npy") == [str(tmp_path / "part_2.npy")]


def test_find_files_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"img_emb: no such folder\. A data set is a folder with"):
        find_files(tmp_path / "img_emb", ".npy")


def test_find_files_folder_without_such_files_is_refused(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"expected \*\.npy files, found none"):
        find_files(tmp_path, ".npy")


# --- scan_parts -----------------------------------------------------------------------------------


def scan(folder: Path):
    text = folder / "text_emb"
    return scan_parts(
        find_files(folder / "metadata", ".parquet"),
        find_files(folder / "img_emb", ".npy"),
        find_files(text, ".npy") if text.is_dir() else None,
    )


def test_scan_parts_row_ids_run_through_parts_and_empty_ones(tmp_path, write_dataset):
    rows = [3, 0, 7, 2, 0]
    parts, schemas = scan(write_dataset(tmp_path / "d", [made(n, 5) for n in rows]))
    assert [part.row_start for part in parts] == [0, 3, 3, 10, 12]
    assert [part.row_stop for part in parts] == [3, 3, 10, 12, 12]
    assert [part.index for part in parts] == [0, 1, 2, 3, 4]
    assert len(schemas) == 5


def test_scan_parts_different_numbers_of_files_are_refused(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [made(3, 5), made(2, 5)])
    (folder / "metadata" / "metadata_1.parquet").unlink()
    with pytest.raises(InputError, match=r"img_emb: 2 embedding files, but .*metadata has 1 meta"):
        scan(folder)


def test_scan_parts_other_row_count_than_metadata_is_refused(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [made(3, 5), made(7, 5)])
    np.save(folder / "img_emb" / "img_emb_1.npy", made(11, 5))
    with pytest.raises(
        InputError, match=r"img_emb_1\.npy: 11 embeddings, but .*metadata_1\.parquet has 7 rows"
    ):
        scan(folder)


def test_scan_parts_mixed_dimensions_are_refused(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [made(3, 5), made(2, 7)])
    with pytest.raises(
        InputError, match=r"img_emb_1\.npy: embeddings have dimension 7, but .*img_emb_0\.npy has 5"
    ):
        scan(folder)


def test_scan_parts_all_parts_empty_is_refused(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [made(0, 5), made(0, 5)])
    with pytest.raises(InputError, match="metadata: all parts are empty"):
        scan(folder)


def test_scan_parts_text_embeddings_may_have_their_own_dimension(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [made(3, 5), made(2, 5)])
    (folder / "text_emb").mkdir()
    for i, rows in enumerate([3, 2]):
        np.save(folder / "text_emb" / f"text_emb_{i}.npy", made(rows, 11))
    parts, _ = scan(folder)
    assert [part.text_embeddings.dim for part in parts] == [11, 11]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3], "1 text embedding files, but .* has 2 metadata files"),
        ([3, 5], r"text_emb_1\.npy: 5 embeddings, but"),
    ],
)
def test_scan_parts_text_embeddings_that_do_not_fit_are_refused(
    tmp_path, write_dataset, rows, message
):
    folder = write_dataset(tmp_path / "d", [made(3, 5), made(2, 5)])
    (folder / "text_emb").mkdir()
    for i, count in enumerate(rows):
        np.save(folder / "text_emb" / f"text_emb_{i}.npy", made(count, 11))
    with pytest.raises(InputError, match=message):
        scan(folder)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\x00" * 200 + b"PAR1", b"x" * 999])
def test_scan_parts_unreadable_parquet_is_refused(tmp_path, write_dataset, content):
    folder = write_dataset(tmp_path / "d", [made(3, 5), made(2, 5)])
    (folder / "metadata" / "metadata_1.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"metadata_1\.parquet: .*cannot be read"):
        scan(folder)


def test_scan_parts_parquet_with_a_name_that_is_no_utf8_is_refused(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [made(3, 5)])
    path = folder / "metadata" / "metadata_0.parquet"
    path.write_bytes(path.read_bytes().replace(b"caption", b"capt\xffon"))
    with pytest.raises(InputError, match=r"metadata_0\.parquet: .*cannot be read \('utf-8' codec"):
        scan(folder)


@given(data=st.data())
def test_scan_parts_mutated_parquet_footer_gives_only_input_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    pd.DataFrame({"url": ["a", "b"], "caption": ["c", None]}).to_parquet(folder / "m.parquet")
    np.save(folder / "e.npy", made(2, 3))
    content = bytearray((folder / "m.parquet").read_bytes())
    footer_bytes = int.from_bytes(content[-8:-4], "little") + 8
    position = data.draw(st.integers(1, footer_bytes))
    content[-position] = data.draw(st.integers(0, 255))
    (folder / "m.parquet").write_bytes(content)
    try:
        parts, _ = scan_parts([str(folder / "m.parquet")], [str(folder / "e.npy")], None)
    except InputError as error:
        assert ".parquet" in str(error)
    else:
        assert parts[0].rows == 2
