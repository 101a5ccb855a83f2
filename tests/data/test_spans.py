"""Parts cut into spans by their rows, and rows read whatever the parts."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup import read_dataset
from dask_dedup.data.part_list import read_parts, write_parts
from dask_dedup.data.part_rows import PartRows
from dask_dedup.data.spans import count_spans, cut_spans, packed_spans, read_span


def made(*rows):
    """Return parts that know their rows only."""
    starts = np.cumsum([0, *rows]).tolist()
    return [
        SimpleNamespace(
            index=i, rows=n, row_start=s, row_stop=s + n, embeddings=SimpleNamespace(column=None)
        )
        for i, (s, n) in enumerate(zip(starts, rows, strict=False))
    ]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=80).filter(any), st.integers(1, 60))
def test_cut_spans_keeps_every_part_once_and_few_spans(rows, limit):
    spans = cut_spans(made(*rows), limit)
    assert [part.index for span in spans for part in span.parts] == list(range(len(rows)))
    assert [span.index for span in spans] == list(range(len(spans)))
    for span in spans:
        filled = [part.rows for part in span.parts if part.rows]
        assert span.rows == sum(filled) > 0
        assert span.rows <= limit or len(filled) == 1
    assert len(spans) <= 2 * sum(rows) / limit + 1
    without_empty = cut_spans([part for part in made(*rows) if part.rows], limit)
    assert [(s.row_start, s.row_stop) for s in without_empty] == [
        (s.row_start, s.row_stop) for s in spans
    ]


@pytest.mark.parametrize(
    ("rows", "parts", "expected"),
    [
        (10**6, 8, 8),  # 125,000 rows each: as they are
        (10**6, 20_000, 32),  # 31,250 rows are 625 parts of 50
        (1_200_000, 2_400, 32),
        (2_000, 500, 1),
        (64 * 10**6, 64, 64),
        (10**9, 10**6, 3817),  # 2^18 rows are 262 parts
    ],
)
def test_count_spans_of_equal_parts_is_what_cut_spans_makes(rows, parts, expected):
    assert count_spans(rows, parts) == expected
    if parts < 10**5:
        assert len(cut_spans(made(*[rows // parts] * parts))) == expected


def test_packed_spans_are_those_of_columns_and_of_many_small_parts():
    assert packed_spans(cut_spans(made(*[10] * 64))) == []
    spans = cut_spans(made(*[10] * 65))
    assert packed_spans(spans) == list(spans)
    spans = cut_spans(made(*[1000] * 70))
    assert packed_spans(spans) == []
    spans = cut_spans(made(*[5] * 1000, *[3000] * 4))
    assert [span.index for span in packed_spans(spans)] == [0, 1, 2]  # 5,000 rows, 2,187 a span
    columns = made(10, 3000)
    columns[0].embeddings.column = "image"
    assert [span.rows for span in packed_spans(cut_spans(columns))] == [10]


@pytest.mark.parametrize("dtypes", [["f2"], ["f2", "f4"], [">f4", "f2", "f8"]])
def test_rows_are_those_of_the_input_whatever_the_parts(tmp_path, write_dataset, dtypes):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 6)).astype("f2")
    pieces = np.split(values, np.sort(rng.integers(0, 501, 60)))
    pieces = [piece.astype(dtypes[i % len(dtypes)]) for i, piece in enumerate(pieces)]
    pieces[3] = np.asfortranarray(pieces[3])
    data = read_dataset(write_dataset(tmp_path / "d", pieces))
    rows = PartRows(data.parts)
    ids = np.sort(rng.integers(0, 500, 300))
    np.testing.assert_array_equal(rows.gather(ids), values[ids])
    assert rows.gather(ids[:0]).shape == (0, 6)
    for span in cut_spans(data.parts, 70):
        for start, stop in [(0, span.rows), (span.rows // 3, span.rows // 2 + 1)]:
            block = read_span(span, start, stop)
            assert block.dtype == np.result_type(
                *{p.embeddings.dtype for p in span.parts if p.rows}
            )
            np.testing.assert_array_equal(block, values[span.row_start :][start:stop])


def test_part_list_survives_its_file(tmp_path, clipart):
    parts = read_dataset(clipart).parts
    write_parts(parts, tmp_path / "parts.json", 4000)
    found = read_parts(tmp_path / "parts.json")
    assert found.parts == parts
    assert [span.rows for span in found.spans] == [span.rows for span in cut_spans(parts, 4000)]
