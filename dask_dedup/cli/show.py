"""`dask-dedup show`: what a row, a URL or a cluster is a duplicate of, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dask_dedup.cli.group import PATH, escaped, main, say
from dask_dedup.paths import AnyPath

__all__ = ["show"]

_URL_LENGTH, _CAPTION_LENGTH = 60, 70
_PATH_EDGES = 40  # of a path that are printed


@main.command(short_help="show the duplicates of a row, a URL or a cluster, and what links them")
@click.argument("out", type=PATH)
@click.option("--row", type=int, help="row_id of a row: its place in the data set, from 0")
@click.option("--url", help="URL as it stands in the data set; several rows may have it")
@click.option("--cluster", type=int, help="cluster_id: that of the cluster's smallest row")
@click.option(
    "--path", "other", type=int, metavar="ROW", help="a row to which the whole path is shown"
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="rows of a cluster to show",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON, with all columns")
def show(
    out: AnyPath,
    row: int | None,
    url: str | None,
    cluster: int | None,
    other: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the cluster of a row or a URL in OUT: who stays, who goes, how alike they are, and why.

    Give one of --row, --url and --cluster. Of each row the table says whether it stays or for which
    row it goes; its similarity (cosine) to that row, or of one that stays, to the row that
    represents the cluster; and how many pairs link the two: rows may be in one cluster only through
    others, each at or above the threshold to the next. The weakest pair of such a path is the
    highest threshold at which the two rows are in one cluster. Of rows that stay it says why: by
    which rule of the run (--keep, --protect, --decisions), or since none that stays is similar
    enough.

    --path prints the path from the first row asked for to another row. If they are in different
    clusters, it says at which lower threshold they would be in one, down to that of the search.

    OUT is read, and nothing is changed. --row and --cluster read the column cluster_id from the
    cluster's first part on, --url the column url of all parts; then one pass over OUT/forest.

    Exit codes: 0 shown, 2 there is no such row, URL or cluster, or OUT holds no finished run.
    """
    from dask_dedup.results.result import open_result
    from dask_dedup.results.show import Asked, show_rows

    asked = Asked(row, url, cluster)
    asked.check()
    result = open_result(out)
    report = show_rows(out, result.files, result.summary, asked, other, limit, result.keep_reasons)
    if as_json:
        click.echo(json.dumps({"out": str(out), **report}, indent=2, default=_plain))
        return
    console = Console()
    for group in report["clusters"]:
        _print_cluster(group, console)
    more = report["clusters_found"] - len(report["clusters"])
    if more:
        say(console, f"and {more:,} more clusters with rows of this URL; --row shows one of them")
    if not report["is_verified"]:
        say(console, "a run with --no-verify: paths have quantized similarities, not cosines")
    if report["path"] is not None:
        _print_path(report["path"], report["threshold"], report["search_threshold"], console)


def _print_cluster(group: Mapping[str, Any], console: Console) -> None:
    size, shown = group["cluster_size"], len(group["members"])
    title = f"cluster {group['cluster_id']}: {_count(size, 'row')}, {group['kept']:,} stay"
    if group["kept"] == 1:
        title += "s"
    if shown < size:
        title += f"; {shown:,} shown"
    say(console, title)
    table = Table(box=None, pad_edge=False)
    for name in ("", "row", "", "similarity", "linked by", "URL", "caption"):
        is_number = name in ("row", "similarity")
        table.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=name not in ("URL", "caption"),
            overflow="fold",
        )
    for one in group["members"]:
        metadata = one["metadata"]
        table.add_row(
            "→" if one["is_asked"] else "",
            str(one["row_id"]),
            _verdict(one),
            "" if one["similarity"] is None else f"{one['similarity']:.4f}",
            _links(one),
            _cell(metadata.get("url"), _URL_LENGTH, is_url=True),
            _cell(metadata.get("caption"), _CAPTION_LENGTH),
        )
    console.print(table)
    console.print()
    for one in group["members"]:
        if one["is_asked"] or (one["reason"] != "represents its cluster" and one["is_kept"]):
            say(console, f"row {one['row_id']}: {one['reason']}")
            if one["path"] is not None and len(one["path"]) > 1:
                _print_edges(one["path"], console)
    console.print()


def _verdict(one: Mapping[str, Any]) -> str:
    if one["is_kept"]:
        return "stays"
    return "goes" if one["witness_row_id"] is None else f"goes for {one['witness_row_id']}"


def _links(one: Mapping[str, Any]) -> str:
    """Return in words what links a row to the one that stays for it."""
    if one["path"] is None:
        return ""  # the reason says more
    path = one["path"]
    if len(path) == 1:
        return "its pair"
    weakest = min(edge["similarity"] for edge in path)
    return f"{len(path):,} pairs, weakest {weakest:.4f}"


def _print_path(
    path: Mapping[str, Any], threshold: float, search_threshold: float, console: Console
) -> None:
    one, other, edges = path["from_row"], path["to_row"], path["edges"]
    if edges is None:
        say(
            console,
            f"rows {one} and {other}: no chain of pairs joins them at {search_threshold:g}, from "
            f"which on was searched, or above",
        )
        return
    if not edges:
        say(console, f"rows {one} and {other}: the same row")
        return
    weakest = next(edge["similarity"] for edge in edges if edge["is_weakest"])
    say(
        console,
        f"rows {one} and {other}: {_count(len(edges), 'pair')}, the weakest {weakest:.4f}: in one "
        f"cluster at thresholds up to there (this run: {threshold:g})",
    )
    _print_edges(edges, console)


def _print_edges(edges: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the pairs of a path, one a line; of a long one, its ends and the weakest."""
    half = _PATH_EDGES // 2
    inner = range(half, len(edges) - half)
    for i, edge in enumerate(edges):
        if i == half and inner:
            say(console, f"  … {_count(len(edges), 'pair')} in all")
        if i not in inner or edge["is_weakest"]:
            mark = "  the weakest" if edge["is_weakest"] and len(edges) > 1 else ""
            say(console, f"  {edge['from_row']} – {edge['to_row']}  {edge['similarity']:.4f}{mark}")


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _cell(value: Any, length: int, is_url: bool = False) -> Text:
    """Return a value of the user's as text: one line, shortened, obeyed by no terminal."""
    if value is None:
        return Text("–", style="dim")
    text = str(value)
    if is_url:
        text = text.removeprefix("https://").removeprefix("http://")
    if len(text) > length:  # of a URL, its end says more
        first = length // 3 if is_url else length - 1
        text = f"{text[:first]}…{text[len(text) - (length - 1 - first) :]}"
    return Text(escaped(" ".join(text.split()) if not is_url else text))


def _plain(value: Any) -> Any:
    """Return what JSON has no type for as one that it has: arrays as lists, the rest as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
