"""SQL over the user's columns: an ``ORDER BY`` list that ranks copies, a ``WHERE`` that protects.

DuckDB parses and computes them, part by part, over Arrow tables of the columns that they name. It
reaches no file, no network and no other table, and loads no extension. What is not a function of
the row alone is refused: subqueries, windows, aggregates, random numbers, the time of day. So no
expression joins rows with rows; one that is slow by itself is stopped after `LIMIT_SECONDS`.

Of a column in an order, nulls come last, rising or falling, and NaN counts as null; ``NULLS FIRST``
changes that. Text is compared by its bytes in UTF-8. Whole numbers of up to 32 bits count as 64.
Ranks are compared across tasks as DuckDB's sort keys: bytes, in whose order the values are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from dask_dedup.data.metadata import MetadataColumns, as_plain
from dask_dedup.errors import SettingsError
from dask_dedup.report.count_text import count_text
from dask_dedup.results.expression_check import (
    ROW,
    TABLE,
    Connection,
    check_nodes,
    error_of,
    parse,
    text_of,
    time_limit,
)

if TYPE_CHECKING:
    import duckdb

__all__ = ["KEY", "Expression", "evaluate", "parse_condition", "parse_order"]

#: For the rows of one part at a time; 10⁶ rows of a simple expression take about a second.
LIMIT_SECONDS = 600.0
KEY = "key"  # what `evaluate` calls the value of an expression


class Expression(NamedTuple):
    """An expression that has been checked.

    Attributes
    ----------
    option : str
        Setting that it comes from, for messages.
    text : str
        As the user wrote it.
    sql : str
        What is computed: a sort key, or a condition.
    columns : tuple of (str, str)
        Names that it uses, and what the data set calls these columns.
    """

    option: str
    text: str
    sql: str
    columns: tuple[tuple[str, str], ...]

    def error(self, problem: object) -> SettingsError:
        """Return the error of this expression, the problem reduced to a line."""
        return error_of(self.option, self.text, problem)


def parse_order(text: str, columns: MetadataColumns, option: str = "keep.order") -> Expression:
    """Check what stands behind ``ORDER BY``.

    Parameters
    ----------
    text : str
        Such as ``width*height desc, length(caption) desc, row_id``.
    columns : MetadataColumns
        Of the data set; names of the input's files do as well.
    option : str
        For messages.

    Returns
    -------
    Expression
        Whose value is a sort key: binary or int64, to be sorted rising.

    Raises
    ------
    SettingsError
        It is no such list, names a column that there is none of, uses what is refused, or its
        types do not fit.
    """
    with Connection() as connection:
        node = parse(connection, f"SELECT 1 FROM {TABLE} ORDER BY {text}\n", option, text)
        modifiers = node["modifiers"]
        if [one["type"] for one in modifiers] != ["ORDER_MODIFIER"]:
            raise error_of(option, text, "expected columns or expressions to sort by, and no more")
        orders = modifiers[0]["orders"]
        if any(order["expression"].get("class") == "CONSTANT" for order in orders):
            raise error_of(option, text, "a constant orders nothing")
        node = {**node, "modifiers": []}
        names = check_nodes(
            connection, [order["expression"] for order in orders], columns, option, text
        )
        parts = [text_of(connection, node, order["expression"]) for order in orders]
        draft = Expression(option, text, "", names)
        _register(connection, _empty(draft, columns), draft)
        kinds = _types(connection, parts, draft)
        arguments = []
        for order, part, kind in zip(orders, parts, kinds, strict=True):
            if kind in ("FLOAT", "DOUBLE"):
                part = f"nullif({part}, 'NaN'::{kind})"
            falls = "DESC" if order["type"] == "DESCENDING" else "ASC"
            first = "FIRST" if order["null_order"].replace("_", " ") == "NULLS FIRST" else "LAST"
            arguments.append(f"{part}, '{falls} NULLS {first}'")
        found = draft._replace(sql=f"create_sort_key({', '.join(arguments)})")
        _types(connection, [found.sql], found)
    return found


def parse_condition(
    text: str, columns: MetadataColumns, option: str = "keep.protect"
) -> Expression:
    """Check what stands behind ``WHERE``; its value is a boolean, null counts as false.

    See `parse_order`.
    """
    with Connection() as connection:
        node = parse(connection, f"SELECT 1 FROM {TABLE} WHERE {text}\n", option, text)
        if node["modifiers"] or not node["where_clause"]:
            raise error_of(option, text, "expected a condition, and no more")
        condition = node["where_clause"]
        names = check_nodes(connection, [condition], columns, option, text)
        node = {**node, "where_clause": None}
        found = Expression(option, text, text_of(connection, node, condition), names)
        _register(connection, _empty(found, columns), found)
        kind = _types(connection, [found.sql], found)[0]
        if kind != "BOOLEAN":
            raise found.error(f"expected a condition, true or false, got a value of type {kind}")
        return found._replace(sql=f"coalesce({found.sql}, false)")


def evaluate(
    expression: Expression, table: pa.Table, limit_seconds: float = LIMIT_SECONDS
) -> pa.ChunkedArray:
    """Compute an expression.

    Parameters
    ----------
    expression : Expression
    table : pyarrow.Table
        With ``row_id`` and the columns of the expression, as the data set calls them.
    limit_seconds : float

    Returns
    -------
    pyarrow.ChunkedArray
        A value a row, in their order.

    Raises
    ------
    SettingsError
        A value cannot be computed: a text that is no number, a number too large; or all of them
        take longer than the limit.
    """
    import duckdb

    with Connection() as connection:
        _register(connection, _renamed(expression, table), expression)
        with time_limit(connection, limit_seconds) as is_over:
            try:
                found = connection.sql(f"SELECT {expression.sql} AS {KEY} FROM {TABLE}")
                values = found.to_arrow_table()[KEY]
            except duckdb.Error as error:
                raise expression.error(
                    _too_long(limit_seconds, table.num_rows) if is_over.is_set() else error
                ) from error
    assert len(values) == table.num_rows
    return values


def _types(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[str], expression: Expression
) -> list[str]:
    """Return the types of expressions over the registered table."""
    import duckdb

    listed = ", ".join(f"{part} AS v{i}" for i, part in enumerate(parts))
    with time_limit(connection, LIMIT_SECONDS) as is_over:
        try:  # beside row_id an aggregate is an error
            found = connection.sql(f"SELECT {ROW}, {listed} FROM {TABLE}")
            kinds = [str(kind) for kind in found.types[1:]]
            found.fetchall()
        except duckdb.Error as error:
            raise expression.error(
                _too_long(LIMIT_SECONDS, 0) if is_over.is_set() else error
            ) from error
    return kinds


def _too_long(seconds: float, rows: int) -> str:
    return (
        f"takes longer than {seconds:g} s for {count_text(rows, 'row')}. Write it shorter, or put "
        f"what it computes into a column of the metadata"
    )


def _register(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, expression: Expression
) -> None:
    import duckdb

    try:
        connection.register(TABLE, table)
        connection.execute(f"SELECT * FROM {TABLE} LIMIT 0").fetchall()
    except (duckdb.Error, pa.ArrowException, NotImplementedError) as error:
        kinds = ", ".join(f"{field.name!r} {field.type}" for field in table.schema)
        raise expression.error(f"columns of these types cannot be used: {kinds}") from error


def _empty(expression: Expression, columns: MetadataColumns) -> pa.Table:
    schema = columns.schema
    names = [name for _, name in expression.columns if name != ROW]
    fields = [pa.field(ROW, pa.int64()), *(schema.field(name) for name in dict.fromkeys(names))]
    arrays = [pa.nulls(0, field.type) for field in fields]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    return _renamed(expression, table)


def _renamed(expression: Expression, table: pa.Table) -> pa.Table:
    """Return the columns that an expression names, as it names them, in types for SQL."""
    pairs = [(ROW, ROW), *((one, two) for one, two in expression.columns if one.lower() != ROW)]
    plain = as_plain(table.select(list(dict.fromkeys(name for _, name in pairs))))
    arrays = [_widened(plain[name]) for _, name in pairs]
    return pa.table(arrays, names=[name for name, _ in pairs])


def _widened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whole numbers with 64 bits: products of sizes leave 32."""
    kind = column.type
    if pa.types.is_integer(kind) and kind.bit_width < 64:
        return column.cast(pa.int64())
    return column.cast(pa.float32()) if pa.types.is_float16(kind) else column
