"""Pictures made elsewhere, by their names or by a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dask_dedup.errors import InputError
from dask_dedup.verbatim.given_images import find_images

_CANDIDATES = pd.DataFrame({"candidate": [0, 1, 12], "row_id": [100, 70, 5]})
_CAPTIONS = pd.DataFrame({"candidate": [0, 1, 1, 12], "caption": ["a", "a", "b, c", "c"]})


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_find_images_by_the_digits_of_their_names(tmp_path: Path) -> None:
    _touch(
        tmp_path, "000012-00-0003.png", "12_b.JPG", "12/x.webp", "1.png", "0/7.png", "0001/a/b.png"
    )
    _touch(tmp_path, "13.png", "notes.txt", "cat.png", ".12.png")
    found = find_images(tmp_path, _CANDIDATES, _CAPTIONS)
    names = {
        candidate: [Path(name).relative_to(tmp_path).as_posix() for name in files]
        for candidate, files in found.by_candidate.items()
    }
    assert names == {
        0: ["0/7.png"],
        1: ["1.png"],
        12: ["000012-00-0003.png", "12/x.webp", "12_b.JPG"],
    }
    assert found.unknown == 3  # of candidate 13, the cat, and one two folders deep


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("image,candidate\nx/a.png,12\nb.png, 0.0\nc.png,3\n", {12: ["x/a.png"], 0: ["b.png"]}),
        ("row_id,image\n70,a.png\n5,b.png\n6,c.png\n", {1: ["a.png"], 12: ["b.png"]}),
        ('caption,image\na,a.png\n"b, c",b.png\nd,c.png\n', {0: ["a.png"], 1: ["b.png"]}),
    ],
    ids=["candidate", "row_id", "caption"],
)
def test_find_images_by_a_table(tmp_path: Path, table: str, expected: dict) -> None:
    (tmp_path / "made.csv").write_text(table)
    found = find_images(tmp_path / "made.csv", _CANDIDATES, _CAPTIONS)
    wanted = {key: tuple(str(tmp_path / name) for name in names) for key, names in expected.items()}
    assert found.by_candidate == wanted
    assert found.unknown == 1


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("image,name\na.png,1\n", "expected the columns image and one of candidate, row_id, cap"),
        ("image,row_id,candidate\na.png,1,1\n", "the columns image and one of candidate, row_id"),
        ("image,candidate\na.png,1\nb.png,x\n", "row 2: expected a whole number as candidate"),
        ("image,candidate\na.png,1.5\n", "row 1: expected a whole number as candidate, got '1.5'"),
        ("image,candidate\na.png,inf\n", "row 1: expected a whole number as candidate, got 'inf'"),
        ("image,row_id\na.png,-5\n", "row 1: expected a whole number as row_id, got '-5'"),
        ("image,candidate\na.png\n", "row 1: expected a whole number as candidate, got ''"),
        ("image,candidate\na.png,1\n,0\n", "row 2: expected the path of an image, got none"),
        ("image,candidate\na.png,1\na.png,0\n", r"row 2: a\.png is there twice"),
        ("image,candidate\na.png,99\n", "none of 1 pictures belongs to a candidate"),
    ],
)
def test_find_images_by_a_table_of_something_else_is_refused(
    tmp_path: Path, table: str, text: str
) -> None:
    (tmp_path / "made.csv").write_text(table)
    with pytest.raises(InputError, match=text):
        find_images(tmp_path / "made.csv", _CANDIDATES, _CAPTIONS)


def test_find_images_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder or file"):
        find_images(tmp_path / "none", _CANDIDATES, _CAPTIONS)
    with pytest.raises(InputError, match="none of 0 pictures"):
        find_images(tmp_path, _CANDIDATES, _CAPTIONS)
