"""Keys as text: one for one row, null where a part of it is missing."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from dask_dedup.errors import SettingsError
from dask_dedup.results.row_keys import key_texts, named_column


def test_key_texts_of_types_that_say_the_same_are_equal():
    expected = ["12", None, "-3"]
    for kind in (pa.int8(), pa.int64(), pa.decimal128(5, 0)):
        values = pa.array([12, None, -3] if kind.id != pa.decimal128(5, 0).id else
                          [Decimal(12), None, Decimal(-3)], kind)  # fmt: skip
        assert key_texts([values]).to_pylist() == expected
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        assert key_texts([pa.array(["12", "", "-3"], kind)]).to_pylist() == expected
    texts = pa.chunked_array([["12"], [None, "-3"]])
    assert key_texts([texts.dictionary_encode()]).to_pylist() == expected
    assert key_texts([pa.chunked_array([], pa.string())]).to_pylist() == []


def test_key_texts_of_bytes_are_hexadecimal():
    for kind in (pa.binary(2), pa.binary(), pa.large_binary(), pa.binary_view()):
        assert key_texts([pa.array([b"\xff\x00", None], kind)]).to_pylist() == ["ff00", None]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_key_texts_of_nan_are_null(kind):
    values = pa.array(np.array([1.5, np.nan, 3], kind.to_pandas_dtype()), kind)
    assert key_texts([values]).to_pylist() == ["1.5", None, "3"]


def test_key_texts_of_several_columns_tell_all_rows_apart():
    odd = ["a", "a\x1f", "a\\", "\\u", "\x1f", "", "b"]
    pairs = [(one, other) for one in odd for other in odd]
    columns = [pa.array([pair[i] for pair in pairs]) for i in (0, 1)]
    texts = key_texts(columns).to_pylist()
    assert [text is None for text in texts] == ["" in pair for pair in pairs]
    there = [text for text in texts if text is not None]
    assert len(set(there)) == len(there) == 36


def test_key_texts_of_lists_are_refused():
    with pytest.raises(SettingsError, match="expected columns of text or numbers, got list"):
        key_texts([pa.array([[1]])])


def test_named_column_knows_both_spellings():
    assert named_column("url", ["URL", "x"], "a.parquet") == "URL"
    assert named_column("url", ["link", "URL"], "a.parquet", ["link"]) == "link"
    assert named_column("TEXT", ["caption"], "a.parquet") == "caption"
    with pytest.raises(SettingsError, match=r"key: a.parquet has no column 'url'; it has x, y"):
        named_column("url", ["x", "y"], "a.parquet")
