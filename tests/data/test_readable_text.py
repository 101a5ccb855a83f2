"""Text that is no UTF-8, made readable: each value against Python's own decoder."""

import pyarrow as pa
import pytest

from dask_dedup.data.readable_text import readable, readable_table

VALUES = [b"a\xff", None, "é".encode(), b"\xe9 b"]
READABLE = ["a\\xff", None, "é", "\\xe9 b"]


def unchecked(kind=None):
    """Text of these bytes, as parquet files of elsewhere hold it."""
    kind = kind or pa.string()
    plain = pa.array(VALUES, pa.large_binary() if kind == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(kind, len(VALUES), plain.buffers())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_readable_of_text_is_escaped_where_it_is_no_utf8(kind):
    for first in (0, 1):
        found = readable(pa.chunked_array([unchecked(kind).slice(first), unchecked(kind)]))
        assert found.type == kind
        assert found.to_pylist() == READABLE[first:] + READABLE


@pytest.mark.parametrize("first", [0, 1])
def test_readable_of_nested_text_is_escaped_below(first):
    text = unchecked()
    tags, pairs = pa.array([0, 2, None, 4], pa.int32()), pa.array([0, 1, 4], pa.int32())
    some = READABLE
    cases = [
        (pa.ListArray.from_arrays(tags, text), [some[:2], some[2:], None]),
        (pa.FixedSizeListArray.from_arrays(text, 2), [some[:2], some[2:]]),
        (pa.DictionaryArray.from_arrays(pa.array([0, 3, None]), text), [some[0], some[3], None]),
        (
            pa.StructArray.from_arrays([text, pa.array(range(4))], ["s", "n"],
                                       mask=pa.array([False, False, True, False])),
            [{"s": some[0], "n": 0}, {"s": None, "n": 1}, None, {"s": some[3], "n": 3}],
        ),
        (
            pa.MapArray.from_arrays(pairs, pa.array(list("abcd")), text),
            [[("a", some[0])], list(zip("bcd", some[1:], strict=True))],
        ),
    ]  # fmt: skip
    for array, expected in cases:
        found = readable(pa.chunked_array([array.slice(first)]))
        assert found.type == array.type
        assert found.to_pylist() == expected[first:]


def test_readable_table_leaves_readable_columns_as_they_are():
    table = pa.table({"n": [1], "text": ["é"], "tags": [["x"]]})
    assert readable_table(table).equals(table)
