"""Decisions: each thing that can be wrong with a line is told with its number."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from dask_dedup.data.metadata import MetadataColumns
from dask_dedup.errors import SettingsError
from dask_dedup.results.decisions import match_keys, read_decisions
from dask_dedup.results.roles import NOT_DUPLICATE, PROTECTED, UNWANTED

SCHEMA = pa.schema(
    [("url", pa.string()), ("caption", pa.string()), ("size", pa.int64()), ("x", pa.float64())]
)
COLUMNS = MetadataColumns(SCHEMA, (("URL",), ("caption",), ("size",), ("x",)))


def read(tmp_path, text, rows=100):
    path = tmp_path / "decisions.csv"
    path.write_bytes(text.encode())
    return read_decisions(path, COLUMNS, rows)


def test_read_decisions_by_row(tmp_path):
    lines = [
        "decision, row_id ,url",
        'keep,7,"a, b"',
        "",
        " drop ,3,",
        "not-duplicates,99,",
        "keep,7,",
    ]
    text = "\ufeff" + "\r\n".join(lines)
    found = read(tmp_path, text)
    assert found.is_by_row and found.drops and found.text == text
    expected = pd.DataFrame({"row_id": [3, 7, 99], "role": [UNWANTED, PROTECTED, NOT_DUPLICATE]})
    pd.testing.assert_frame_equal(found.of_rows(), expected.astype({"role": "u1"}))


def test_read_decisions_by_a_column_of_the_clusters_or_the_input(tmp_path):
    for name in ("url", "URL"):
        found = read(tmp_path, f"{name},decision\nhttp://a,keep\nhttp://b,keep\n")
        assert (found.key, found.is_by_row, found.drops) == ("url", False, False)
        assert found.by_key()["key"].tolist() == ["http://a", "http://b"]


def test_digest_is_of_the_content(tmp_path):
    one, same = (read(tmp_path, "row_id,decision\n1,keep\n") for _ in range(2))
    other = read(tmp_path, "row_id,decision\n1,drop\n")
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: expected the names of columns, row_id and decision, got nothing"),
        ("row_id,verdict\n", "line 1: expected the names of columns"),
        ("row_id,decision,decision\n", "line 1: expected the names of columns"),
        ("decision\nkeep\n", "line 1: expected row_id, or one column"),
        ("url,caption,decision\n", "line 1: expected row_id, or one column"),
        ("link,decision\n", "line 1: the data set has no column 'link'; it has url, caption"),
        ("x,decision\n", "line 1: column 'x' is double, which identifies no rows"),
        ("row_id,decision\n1,keep\n2,maybe\n", "line 3: unknown decision 'maybe'; expected keep"),
        ("row_id,decision\n1,KEEP\n", "line 2: unknown decision 'KEEP'"),
        ("row_id,decision\n\n100,keep\n", "line 3: expected a row_id from 0 to 99, got '100'"),
        ("row_id,decision\n-1,keep\n", "line 2: expected a row_id from 0 to 99, got '-1'"),
        ("row_id,decision\n1.5,keep\n", "line 2: expected a row_id"),
        ("row_id,decision\n¹,keep\n", "line 2: expected a row_id"),
        ("row_id,decision\n,keep\n", "line 2: expected a row_id"),
        (
            "row_id,decision\n1,keep\n2,drop\n1,drop\n",
            "line 4: row_id 1 is decided otherwise in line 2: drop, and keep there",
        ),
        ("url,decision\na,keep\na,not-duplicates\n", "line 3: url a is decided otherwise"),
        ("row_id,decision\n1\n", "line 2: expected 2 values, got 1"),
        ("row_id,decision\n1,keep,more\n", "line 2: expected 2 values, got 3"),
        ('row_id,decision\n1,"keep\n', "not CSV"),
    ],
)
def test_read_decisions_names_the_line_that_is_wrong(tmp_path, text, words):
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "decisions.csv")) and words in str(
        caught.value
    )


def test_read_decisions_of_what_is_no_text(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not text in UTF-8"):
        read_decisions(tmp_path / "d.csv", COLUMNS, 1)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_decisions(tmp_path / "none.csv", COLUMNS, 1)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["5", None, "x", "7", "5", "None"]),
        pa.array(["5", None, "x", "7", "5", "None"]).dictionary_encode(),
        pa.array(["5", None, "x", "7", "5", "None"], pa.string_view()),
        pa.array([5, None, 6, 7, 5, 0]),
    ],
)
def test_match_keys_finds_all_rows_with_a_value(tmp_path, values):
    given = read(tmp_path, "caption,decision\n7,keep\n5,drop\n").by_key()
    found = match_keys(given, pa.chunked_array([values]), 1000)
    assert found["row_id"].tolist() == [1000, 1003, 1004]
    assert found["role"].tolist() == [UNWANTED, PROTECTED, UNWANTED]
    assert found["number"].tolist() == [1, 0, 1]
