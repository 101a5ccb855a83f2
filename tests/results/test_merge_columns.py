"""Merged columns: each way, by pandas' groupby or by hand, for any types; what does not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dask_dedup.data.metadata import MetadataColumns
from dask_dedup.errors import SettingsError
from dask_dedup.results.merge_columns import (
    MergeColumn,
    check_merge,
    merge_part,
    merge_values,
    plain_values,
)


def columns(**types):
    schema = pa.schema([("url", pa.string()), *types.items()])
    return MetadataColumns(schema, tuple(((name.upper()),) for name in schema.names))


def merged(values, owners, count, way):
    table = plain_values(pa.table({"v": values}), [MergeColumn("v", way)])
    return merge_values(table, np.array(owners), count, [MergeColumn("v", way)])["v_merged"]


def test_merge_values_by_hand():
    texts = pa.array(["b", None, "a", "b", "c", "a"])
    owners = [0, 1, 2, 0, 0, 2]
    assert merged(texts, owners, 4, "distinct").to_pylist() == [["b", "c"], [], ["a"], []]
    assert merged(texts, owners, 4, "first").to_pylist() == ["b", None, "a", None]
    assert merged(texts, owners, 4, "max").to_pylist() == ["c", None, "a", None]
    lists = pa.array([["x", None], None, [], ["y", "x"], ["z", "y"], ["w", "w"]])
    assert merged(lists, owners, 3, "union").to_pylist() == [["x", "y", "z"], [], ["w"]]
    flags = pa.array([False, None, True, False, None, False])
    assert merged(flags, owners, 3, "any").to_pylist() == [False, None, True]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint32(), pa.float32(), pa.float64()])
def test_merge_values_of_numbers_is_pandas(kind):
    rng = np.random.default_rng(0)
    numbers = pa.array([int(n) if n else None for n in rng.integers(0, 100, 500)], kind)
    owners = rng.integers(0, 60, 500)
    groups = numbers.to_pandas().groupby(owners)
    for way, expected in [
        ("max", groups.max()),
        ("min", groups.min()),
        ("sum", groups.sum(min_count=1)),
        ("first", groups.first()),
    ]:
        found = merged(numbers, owners, 60, way)
        assert found.to_pandas().fillna(-1).tolist() == (
            expected.reindex(range(60)).fillna(-1).tolist()
        )
        if way == "sum" and not pa.types.is_floating(kind):
            assert found.type.bit_width == 64


def test_nan_counts_as_no_value():
    numbers = pa.array([np.nan, 1.0, np.nan, np.nan])
    assert merged(numbers, [0, 0, 0, 1], 2, "max").to_pylist() == [1, None]
    assert merged(numbers, [0, 0, 0, 1], 2, "distinct").to_pylist() == [[1], []]


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array(["a", "b", "a"], pa.string_view()),
        pa.array(["a", "b", "a"], pa.large_string()),
    ],
)
def test_merge_values_of_other_layouts_of_text(values):
    assert merged(values, [0, 0, 0], 1, "distinct").to_pylist() == [["a", "b"]]
    assert merged(values, [0, 0, 0], 1, "first").to_pylist() == ["a"]


def test_merge_part_gives_a_value_to_rows_that_stay_only():
    metadata = pa.table({"caption": ["a", "b", "c"], "size": [1, 2, 3]})
    carried = pa.table({"owner": [10, 12, 12], "row_id": [50, 5, 7], "v0": ["z", "c", "d"]})
    carried = carried.append_column("v1", pa.array([10, 20, 30]))
    merge = [MergeColumn("caption", "distinct"), MergeColumn("size", "sum")]
    found = merge_part(metadata, np.array([True, False, True]), 10, carried, merge)
    assert found["caption_merged"].to_pylist() == [["a", "z"], None, ["c", "d"]]
    assert found["size_merged"].to_pylist() == [11, None, 53]
    alone = merge_part(metadata, np.array([True, False, True]), 10, None, merge)
    assert alone["caption_merged"].to_pylist() == [["a"], None, ["c"]]
    assert alone.schema == found.schema


def test_check_merge_takes_names_of_the_input():
    assert check_merge({"URL": "distinct"}, columns()) == (MergeColumn("url", "distinct"),)
    assert pd.Series(check_merge({}, columns())).empty


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        ({"none": "max"}, "there is no column 'none'; there are url, a, b, tags, flag, odd"),
        ({"a": "union"}, "union is for lists of text, numbers, times or booleans, and column 'a'"),
        ({"tags": "distinct"}, "distinct is for"),
        ({"odd": "union"}, "union is for"),
        ({"url": "sum"}, "sum is for numbers, and column 'url' is string"),
        ({"a": "any"}, "any is for booleans"),
        ({"flag": "max"}, "max is for"),
        ({"b": "max"}, "has a column 'b_merged' already"),
        ({"a": "max", "A": "min"}, "column 'a' stands there twice"),
    ],
)
def test_check_merge_refuses(merge, words):
    known = columns(
        a=pa.int64(),
        b=pa.int64(),
        tags=pa.list_(pa.string()),
        flag=pa.bool_(),
        odd=pa.list_(pa.struct([("x", pa.int64())])),
        b_merged=pa.int64(),
    )
    with pytest.raises(SettingsError) as caught:
        check_merge(merge, known)
    assert words.split("; there")[0] in str(caught.value)
