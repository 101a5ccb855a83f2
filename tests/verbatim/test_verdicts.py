"""Verdicts of a person: read back, or refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dask_dedup.errors import InputError
from dask_dedup.verbatim.verdicts import read_verdicts


def test_read_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    text = 'image,verdict\n"a, ""b"".png",confirmed\nc.png,rejected\nc.png,rejected\n'
    for content in (text, text.replace("\n", ",p\n").replace("verdict,p", "verdict,pictures")):
        path.write_text(content)
        found = read_verdicts(path, ['a, "b".png', "c.png", "d.png"], "p")
        assert found == {'a, "b".png': "confirmed", "c.png": "rejected"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("image,word\na.png,x\n", "expected the columns image and verdict, got image, word"),
        (
            "image,verdict\na.png,yes\n",
            "line 2: expected confirmed or rejected as verdict, got 'yes'",
        ),
        (
            "image,verdict\na.png,confirmed\nb.png,rejected\n",
            "line 3: b.png is none of the pictures",
        ),
        ("image,verdict\na.png,confirmed\na.png,rejected\n", "line 3: a.png is both"),
        ("image,verdict,pictures\na.png,confirmed,q\n", "are of other pictures than those"),
        ("", "cannot be read as CSV"),
    ],
)
def test_read_verdicts_of_something_else_is_refused(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "verdicts.csv").write_text(text)
    with pytest.raises(InputError, match=error):
        read_verdicts(tmp_path / "verdicts.csv", ["a.png"], "p")


def test_read_verdicts_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_verdicts(tmp_path / "none.csv", [], "p")
