"""Which files a data set has, and whether they fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.data.scan import find_files, find_matching, scan_parts, scan_texts
from dask_dedup.errors import InputError, SettingsError


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


@pytest.mark.parametrize("name", ["donn\udce9es.npy", "\udcff"])
def test_find_files_name_that_is_no_utf8_is_refused(tmp_path, name):
    (tmp_path / "a.npy").touch()
    (tmp_path / name).mkdir() if name == "\udcff" else (tmp_path / name).touch()
    folder = tmp_path / name if name == "\udcff" else tmp_path
    if name == "\udcff":
        (folder / "b.npy").touch()
        assert find_files(tmp_path, ".npy") == [str(tmp_path / "a.npy")]
    else:
        with pytest.raises(SettingsError, match=r"the name is not UTF-8 .*Rename it, or read it"):
            find_files(folder, ".npy")
    with pytest.raises(SettingsError, match="the name is not UTF-8"):
        find_matching(tmp_path, "**/*.npy")


@pytest.mark.parametrize("name", ["data [v1]", "a*b", "what?", "[", "[!x]"])
def test_find_matching_folder_whose_name_has_magic_is_taken_as_it_is(tmp_path, name):
    for folder in (tmp_path / name, tmp_path / "data v", tmp_path / "axb", tmp_path / "whats"):
        (folder / "emb").mkdir(parents=True)
        (folder / "emb" / "0.npy").touch()
    assert find_matching(tmp_path / name, "emb/*.npy") == [str(tmp_path / name / "emb" / "0.npy")]
    assert find_matching(tmp_path / name, "**/[0-9].npy") == [
        str(tmp_path / name / "emb" / "0.npy")
    ]


def test_find_matching_brackets_that_match_nothing_are_explained(tmp_path):
    (tmp_path / "data [v1]").mkdir()
    (tmp_path / "data [v1]" / "0.npy").touch()
    with pytest.raises(InputError, match=r"no file matches .*\[\[\] is a bracket"):
        find_matching(tmp_path, f"{tmp_path}/data [v1]/*.npy")
    assert find_matching(tmp_path, f"{tmp_path}/data [[]v1]/*.npy")


# --- scan_parts -----------------------------------------------------------------------------------


def scan(folder: Path):
    parts, schemas = scan_parts(
        find_files(folder / "metadata", ".parquet"), find_files(folder / "img_emb", ".npy")
    )
    if (folder / "text_emb").is_dir():
        parts = scan_texts(parts, find_files(folder / "text_emb", ".npy"))
    return parts, schemas


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


def test_scan_parts_more_metadata_than_embeddings_names_the_missing(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "d", [made(3, 5)] * 5)
    for number in (1, 3):
        (folder / "img_emb" / f"img_emb_{number}.npy").unlink()
    with pytest.raises(InputError, match=r"needs one of each; embeddings lack 1, 3\."):
        scan(folder)


@pytest.mark.parametrize("folders", [False, True])
def test_scan_parts_as_many_files_with_other_gaps_are_refused(tmp_path, write_dataset, folders):
    folder = write_dataset(tmp_path / "d", [made(3, 5)] * 4)
    (folder / "img_emb" / "img_emb_2.npy").unlink()
    (folder / "metadata" / "metadata_1.parquet").unlink()
    if folders:  # the number is that of a folder, and patterns find the files
        for path in [*folder.glob("*/*.npy"), *folder.glob("*/*.parquet")]:
            own = path.parent / path.stem.rpartition("_")[2]
            own.mkdir()
            path.rename(own / f"data{path.suffix}")
    paths = [find_matching(folder, f"**/*.{kind}") for kind in ("parquet", "npy")]
    with pytest.raises(InputError, match="say 1 and 2: embeddings lack 2, metadata lack 1"):
        scan_parts(*paths)


def test_scan_parts_says_how_files_without_numbers_are_paired(tmp_path, write_dataset, caplog):
    folder = write_dataset(tmp_path / "d", [made(3, 5)] * 2)
    scan(folder)
    assert not caplog.messages
    (folder / "img_emb" / "img_emb_0.npy").rename(folder / "img_emb" / "img_emb_2.npy")
    parts, _ = scan(folder)
    assert [Path(part.embeddings.path).name for part in parts] == ["img_emb_1.npy", "img_emb_2.npy"]
    (message,) = caplog.messages
    assert "paired by order, their names being numbered unlike" in message


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


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_scan_parts_dimension_is_that_of_most_rows_whichever_part_comes_first(
    tmp_path, write_dataset, odd
):
    arrays = [made(3, 5), made(4, 5), made(2, 5)]
    arrays[odd] = made(len(arrays[odd]), 7)
    folder = write_dataset(tmp_path / "d", arrays)
    with pytest.raises(InputError, match=rf"img_emb_{odd}\.npy: embeddings have dimension 7, but"):
        scan(folder)
    parts, _ = scan_parts(
        find_files(folder / "metadata", ".parquet"),
        find_files(folder / "img_emb", ".npy"),
        skip_bad=True,
    )
    assert [part.embeddings.dim for part in parts] == [5, 5, 5]
    assert [part.embeddings.problem is None for part in parts] == [i != odd for i in range(3)]


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
        ([3], "1 text embedding file, but .* has 2 metadata files"),
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
        parts, _ = scan_parts([str(folder / "m.parquet")], [str(folder / "e.npy")])
    except InputError as error:
        assert ".parquet" in str(error)
    else:
        assert parts[0].rows == 2
