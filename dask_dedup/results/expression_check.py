"""What may stand in an expression of the user: DuckDB's parsed form is looked at, node by node."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from threading import Event, Timer
from typing import TYPE_CHECKING, Any

from dask_dedup.data.metadata_columns import MetadataColumns
from dask_dedup.errors import SettingsError

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "ROW",
    "TABLE",
    "Connection",
    "check_nodes",
    "error_of",
    "parse",
    "text_of",
    "time_limit",
]

TABLE = "dask_dedup_rows"
ROW = "row_id"
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",  # else names of Python's variables would be tables
    "threads": "1",
}
#: Kinds of nodes in a parsed expression that are functions of the row alone.
_ALLOWED = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "LAMBDA_REF",
        "OPERATOR",
        "TYPE",
    }
)
_REFUSED = {
    "SUBQUERY": "holds a subquery",
    "WINDOW": "holds a window function",
    "COLLATE": "holds COLLATE; write lower(...) for letters of either case",
    "STAR": "holds * or ALL; name the columns",
    "PARAMETER": "holds a parameter",
}
_NOW = frozenset({"age"})  # of one argument: up to today


class Connection:
    """A database in memory that reaches nothing else."""

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        self._connection = duckdb.connect(":memory:", config=_CONFIG)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET lock_configuration = true")
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@contextmanager
def time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[Event]:
    """Interrupt what a connection computes after some time; the event tells that it was.

    DuckDB looks between vectors of 2,048 rows, so that the last one is still computed.
    """
    is_over = Event()

    def stop() -> None:
        is_over.set()
        connection.interrupt()

    timer = Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()
        timer.join()


def parse(
    connection: duckdb.DuckDBPyConnection, sql: str, option: str, text: str
) -> dict[str, Any]:
    """Return the parsed SELECT, if it is one of our table and has nothing but what we put in."""
    import duckdb

    try:
        ((answer,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    except duckdb.Error as error:
        raise error_of(option, text, error) from error
    parsed = json.loads(answer)
    if parsed.get("error"):
        raise error_of(option, text, parsed.get("error_message", "cannot be parsed"))
    if len(parsed["statements"]) != 1:
        raise error_of(option, text, "expected one expression, got several statements")
    node = parsed["statements"][0]["node"]
    bare = (
        node["type"] == "SELECT_NODE"
        and node["from_table"]["type"] == "BASE_TABLE"
        and not node["cte_map"]["map"]
        and not node["group_expressions"]
        and not node["group_sets"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and not any(node[name] for name in ("having", "sample", "qualify"))
        and len(node["select_list"]) == 1
    )
    if not bare:
        raise error_of(option, text, "expected an expression, and no more")
    return node


def check_nodes(
    connection: duckdb.DuckDBPyConnection,
    expressions: Sequence[Any],
    columns: MetadataColumns,
    option: str,
    text: str,
) -> tuple[tuple[str, str], ...]:
    """Refuse what is not a function of the row alone; return the columns that are named."""
    nodes = [node for one in expressions for node in _nodes(one)]
    for node in nodes:
        if node["class"] not in _ALLOWED:
            words = _REFUSED.get(node["class"], f"holds {node['class'].lower().replace('_', ' ')}")
            raise error_of(option, text, words)
        if node["class"] == "FUNCTION":
            _check_function(connection, node["function_name"], option, text)
    lambdas = [node for node in nodes if node["class"] == "LAMBDA"]
    free = {
        inner["column_names"][0]
        for node in lambdas
        for inner in _nodes(node["lhs"])
        if inner["class"] == "COLUMN_REF"
    }
    known = _names_of(columns)
    names: dict[str, tuple[str, str]] = {}
    for node in nodes:
        if node["class"] != "COLUMN_REF":
            continue
        name = node["column_names"][0]
        exact = known.get(name)
        near = {other for spelled, other in known.items() if spelled.lower() == name.lower()}
        column = exact or (near.pop() if len(near) == 1 else None)
        if column is None:
            if name in free:
                continue
            if near:
                raise error_of(
                    option, text, f"column {name!r} may be {' or '.join(sorted(near))}: put it into"
                    f" double quotes, as the data set spells it"
                )  # fmt: skip
            raise error_of(option, text, _unknown(name, known))
        other = names.setdefault(name.lower(), (name, column))
        if other[1] != column:
            raise error_of(
                option, text, f"columns {other[1]!r} and {column!r} differ in the case of letters "
                f"only, which SQL does not tell apart"
            )  # fmt: skip
    return tuple(names.values())


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a parsed expression that have a class."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


@cache
def _functions() -> dict[str, list[tuple[str, str | None, str | None]]]:
    """Return kind, stability and definition of all functions of a name."""
    found: dict[str, list] = {}
    with Connection() as connection:
        rows = connection.execute(
            "SELECT function_name, function_type, stability, macro_definition "
            "FROM duckdb_functions()"
        ).fetchall()
    for name, *rest in rows:
        found.setdefault(name.lower(), []).append(tuple(rest))
    return found


def _check_function(
    connection: duckdb.DuckDBPyConnection, name: str, option: str, text: str
) -> None:
    rows = _functions().get(name.lower(), [])
    kinds = {kind for kind, _, _ in rows}
    if not rows:
        raise error_of(option, text, f"there is no function {name}()")
    if not kinds & {"scalar", "macro"}:
        what = "an aggregate" if "aggregate" in kinds else f"a {min(kinds)} function"
        raise error_of(option, text, f"{name}() is {what.replace('_', ' ')}, not one of a row")
    stabilities = {stability for kind, stability, _ in rows if kind == "scalar"}
    if name.lower() in _NOW or (stabilities and "CONSISTENT" not in stabilities):
        raise error_of(option, text, f"{name}() does not depend on the row alone")
    for kind, _, definition in rows:
        if kind == "macro":
            node = parse(connection, f"SELECT {definition} FROM {TABLE}", option, text)
            for inner in _nodes(node["select_list"]):
                if inner["class"] in ("SUBQUERY", "WINDOW"):
                    raise error_of(option, text, f"{name}() does not depend on the row alone")
                if inner["class"] == "FUNCTION" and inner["function_name"] != name:
                    _check_function(connection, inner["function_name"], option, text)


def text_of(
    connection: duckdb.DuckDBPyConnection, node: dict[str, Any], expression: dict[str, Any]
) -> str:
    """Return a parsed expression as text."""
    statement = {"node": {**node, "select_list": [expression]}, "named_param_map": []}
    tree = {"error": False, "statements": [statement]}
    ((sql,),) = connection.execute(
        "SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]
    ).fetchall()
    before, after = "SELECT ", f" FROM {TABLE}"
    assert sql.startswith(before) and sql.endswith(after), sql
    return f"({sql.removeprefix(before).removesuffix(after)})"


def _names_of(columns: MetadataColumns) -> dict[str, str]:
    """Return the names that may be used, and the columns that they mean."""
    known = {
        source: field.name
        for field, sources in zip(columns.schema, columns.sources, strict=True)
        for source in sources
    }
    return {**known, **{name: name for name in columns.schema.names}, ROW: ROW}


def _unknown(name: str, known: dict[str, str]) -> str:
    near = get_close_matches(name, known, 1)
    meant = f" Did you mean {near[0]}?" if near else ""
    some = ", ".join(list(dict.fromkeys(known.values()))[:20])
    return f"there is no column {name!r}.{meant} There are {some}"


def error_of(option: str, text: str, problem: object) -> SettingsError:
    """Return the error of an expression, the problem reduced to a line."""
    line = " ".join(str(problem).split("\n")[0].split())
    if line.startswith("Only SELECT statements"):
        line = "expected one expression, got several statements"
    return SettingsError(f"{option} {text!r}: {line[:300].rstrip('.!')}.")
