"""Counts, rates and data sets in words."""

import pytest

from dask_dedup.report.count_text import count_text, data_text, rate_text


@pytest.mark.parametrize(
    ("count", "noun", "plural", "expected"),
    [
        (0, "row", None, "0 rows"),
        (1, "row", None, "1 row"),
        (2, "row", None, "2 rows"),
        (1_000_000, "row", None, "1,000,000 rows"),
        (1, "query", "queries", "1 query"),
        (3, "query", "queries", "3 queries"),
    ],
)
def test_count_text_has_the_noun_in_its_number(count, noun, plural, expected):
    assert count_text(count, noun, plural) == expected


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.2, "0"), (7.4, "7"), (999.4, "999"), (1464.0, "1,460"), (4_764_188.0, "4,760,000")],
)
def test_rate_text_has_three_digits(rate, expected):
    assert rate_text(rate) == f"{expected} rows/s"


def test_data_text_of_one_row_in_one_part():
    assert data_text("x", 1, 1, 3) == "x: 1 row in 1 part, dimension 3"
