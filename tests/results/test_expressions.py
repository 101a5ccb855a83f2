"""SQL of users: what is allowed gives DuckDB's own order; what is not is refused in one line."""

from __future__ import annotations

import threading
import time

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dask_dedup.data.metadata import MetadataColumns
from dask_dedup.errors import SettingsError
from dask_dedup.results.expressions import evaluate, parse_condition, parse_order

SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("score", pa.float64()),
        ("Cap tion", pa.string_view()),
        ("a", pa.float32()),
        ("A", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("meta", pa.struct([("x", pa.int64())])),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("seen", pa.timestamp("us", "UTC")),
        ("nothing", pa.null()),
        ("half", pa.float16()),
    ]
)
SOURCES = tuple(("URL",) if name == "url" else (name,) for name in SCHEMA.names)
COLUMNS = MetadataColumns(SCHEMA, SOURCES)


def table(rows=400):
    rng = np.random.default_rng(0)
    words = np.array(["", "a", "é", "ß", "Z", "longer", None], object)
    return pa.table(
        {
            "row_id": np.arange(rows),
            "caption": pa.array(rng.choice(words, rows), pa.string()),
            "width": pa.array(rng.choice([1, 2, 70_000, None], rows), pa.int32()),
            "height": pa.array(rng.integers(1, 70_000, rows), pa.int32()),
            "score": rng.choice([np.nan, -0.0, 0.0, 1.5, -np.inf, np.inf], rows),
            "tags": pa.array([list("abc"[: i % 4]) for i in range(rows)]),
            "seen": pa.array(rng.integers(0, 10**15, rows), pa.timestamp("us", "UTC")),
        }
    )


def order_of(key):
    """The rows by rising key, then by row_id."""
    keys = pa.table({"key": key, "row": np.arange(len(key))})
    return pc.sort_indices(keys, [("key", "ascending"), ("row", "ascending")]).to_pylist()


@pytest.mark.parametrize(
    ("order", "sql"),
    [
        ("width*height desc", "width::BIGINT*height desc"),
        ("width*height, length(caption) desc", "width::BIGINT*height, length(caption) desc"),
        ("caption desc nulls first, score", "caption desc nulls first, nullif(score,'NaN')"),
        ("score desc", "nullif(score, 'NaN'::DOUBLE) desc"),
        ("year(seen) desc, SEEN", "year(seen at time zone 'UTC') desc, seen"),
        ("tags desc, row_id desc", "tags desc, row_id desc"),
        ("case when width > 3 then 1 else 2 end, caption", "width > 3 desc, caption"),
        ("caption like '%n%' desc", "caption like '%n%' desc"),
        ("list_sum([length(x) for x in tags]) desc", "len(tags) desc, tags is null"),
        ("nullif(width, 1) -- a remark", "nullif(width, 1)"),
        ("width, ", "width"),
    ],
)
def test_keys_sort_as_duckdb_sorts(order, sql):
    rows = table()
    found = order_of(evaluate(parse_order(order, COLUMNS), rows))
    with duckdb.connect() as connection:
        connection.execute("SET default_null_order = 'nulls_last'; SET TimeZone = 'UTC'")
        connection.register("rows", rows)
        if "year" in sql or "case" in order or "list_sum" in order:
            # An order with the same meaning, and the same nulls.
            sql = sql.replace("width > 3 desc", "coalesce(width > 3, false) desc")
            sql = sql.replace("len(tags) desc", "nullif(len(tags), 0) desc")
        expected = connection.sql(f"SELECT row_id FROM rows ORDER BY {sql}, row_id").fetchall()
    assert found == [row for (row,) in expected]


def test_keys_are_the_same_in_any_pieces():
    rows = table()
    for text in ("width*height desc, caption", "score", "tags"):
        order = parse_order(text, COLUMNS)
        whole = evaluate(order, rows).to_pylist()
        pieces = [evaluate(order, rows.slice(i, 37)) for i in range(0, 400, 37)]
        assert [key for piece in pieces for key in piece.to_pylist()] == whole


def test_keys_of_nulls_are_one():
    rows = pa.table({"row_id": np.arange(5000), "width": pa.nulls(5000, pa.int32())})
    assert len(evaluate(parse_order("width desc", COLUMNS), rows).unique()) == 1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("URL", (("URL", "url"),)),
        ('"Cap tion", Width', (("Cap tion", "Cap tion"), ("Width", "width"))),
        ("meta.x desc", (("meta", "meta"),)),
        ('"a" desc', (("a", "a"),)),
        ("kind, nothing, half", (("kind", "kind"), ("nothing", "nothing"), ("half", "half"))),
    ],
)
def test_columns_go_by_the_names_of_the_clusters_and_of_the_input(text, names):
    assert parse_order(text, COLUMNS).columns == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("width; COPY x TO 'y'", "several statements"),
        ("width desc; select 1", "several statements"),
        ("1", "a constant orders nothing"),
        ("width limit 3", "and no more"),
        ("(select 1)", "holds a subquery"),
        ("exists (from x)", "holds a subquery"),
        ("width in (select 1)", "holds a subquery"),
        ("(from read_csv('/etc/passwd'))", "holds a subquery"),
        ("width) from read_csv('/etc/passwd') --", "syntax error"),
        ("read_text('/etc/passwd')", "table function"),
        ("query('select 1')", "table function"),
        ("random()", "does not depend on the row alone"),
        ("width + random()", "does not depend on the row alone"),
        ("now()", "does not depend on the row alone"),
        ("age(seen)", "does not depend on the row alone"),
        ("uuid()", "does not depend on the row alone"),
        ("nextval('x')", "does not depend on the row alone"),
        ("getvariable('x')", "does not depend on the row alone"),
        ("current_setting('home_directory')", "does not depend on the row alone"),
        ("current_date", "there is no column 'current_date'"),
        ("max(width)", "max() is an aggregate"),
        ("row_number() over ()", "window function"),
        ("*", "name the columns"),
        ("all", "name the columns"),
        ("?", "holds a parameter"),
        ("wdth", "Did you mean width?"),
        ("rowid", "there is no column 'rowid'"),
        ("dask_dedup_rows.width", "there is no column"),
        ("caption collate nocase", "write lower(...)"),
        ("caption + 1", "No function matches"),
        ("meta.y", "y"),
        ("nosuch(width)", "there is no function nosuch()"),
        ('"a", "A"', "in the case of letters only"),
        ("cap", "there is no column 'cap'"),
        ("width asc nulls", "syntax error"),
    ],
)
def test_parse_order_refuses_in_one_line_that_names_it(text, words):
    with pytest.raises(SettingsError) as caught:
        parse_order(text, COLUMNS)
    message = str(caught.value)
    assert message.startswith(f"keep.order {text!r}: ") and words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("width", "got a value of type BIGINT"),
        ("caption = 'a' limit 2", "and no more"),
        ("caption = 'a' group by 1", "and no more"),
        ("caption = 'a' order by 1", "and no more"),
        ("caption = 'a' having true", "and no more"),
        ("caption = 'a' qualify true", "and no more"),
        ("caption = 'a' using sample 3", "and no more"),
        ("caption = 'a'; select 1", "several statements"),
        ("1=1) union select (1", "syntax error"),
        ("caption in (from read_csv('/etc/passwd'))", "holds a subquery"),
        ("source = 'gold'", "there is no column 'source'"),
        ("random() < 0.5", "does not depend on the row alone"),
    ],
)
def test_parse_condition_refuses_in_one_line_that_names_it(text, words):
    with pytest.raises(SettingsError) as caught:
        parse_condition(text, COLUMNS)
    message = str(caught.value)
    assert message.startswith(f"keep.protect {text!r}: ") and words in message
    assert "\n" not in message


def test_a_condition_that_is_null_is_false():
    rows = table(50)
    found = evaluate(parse_condition("width > 2", COLUMNS), rows).to_pylist()
    assert found == [bool(width and width > 2) for width in rows["width"].to_pylist()]


def test_evaluate_names_the_expression_whose_value_cannot_be_computed():
    order = parse_order("caption::int", COLUMNS)
    with pytest.raises(SettingsError, match=r"keep\.order 'caption::int': Conversion Error"):
        evaluate(order, table())


def test_a_variable_of_python_is_no_table():
    frame = table()  # noqa: F841
    with pytest.raises(SettingsError, match="there is no column 'frame'"):
        parse_condition("frame is not null", COLUMNS)


def test_an_expression_that_takes_too_long_is_stopped_and_named():
    rows = pa.table({"row_id": range(200_000)})
    heavy = "list_sum(list_transform(range(400 + row_id % 9), lambda x: list_sum(range(x))))"
    order = parse_order(heavy, COLUMNS)
    start = time.monotonic()
    with pytest.raises(SettingsError, match=r"takes longer than 0\.2 s for 200,000 rows\. Write"):
        evaluate(order, rows, limit_seconds=0.2)
    assert time.monotonic() - start < 20  # all of it takes a minute and more
    assert not any(isinstance(one, threading.Timer) for one in threading.enumerate())


def test_a_limit_that_is_not_reached_changes_nothing():
    rows = table(50)
    order = parse_order("width desc", COLUMNS)
    assert evaluate(order, rows, limit_seconds=60).equals(evaluate(order, rows))


@pytest.mark.parametrize(
    "text",
    [
        "(select count(*) from range(100000) a, range(100000) b) > 0",
        "width in (with recursive r as (select 1 n union all select n + 1 from r) select n from r)",
        "exists (select 1 from dask_dedup_rows a, dask_dedup_rows b)",
    ],
)
def test_joins_and_recursion_are_refused_before_anything_is_computed(text):
    start = time.monotonic()
    with pytest.raises(SettingsError, match="subquery"):
        parse_condition(text, COLUMNS)
    assert time.monotonic() - start < 5
