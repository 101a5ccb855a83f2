"""`dask-dedup apply`: put the decisions of a run to another copy of its metadata."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.command_workers import workers_and_progress
from dask_dedup.cli.group import (
    PATH,
    chosen_settings,
    main,
    open_console,
    overwriting,
    say,
    verbosity,
    worker_settings,
)
from dask_dedup.paths import AnyPath

__all__ = ["apply"]

_MEANINGS = {
    "kept": "stay in the result",
    "dropped": "are dropped in the result",
    "ambiguous": "have a key that stands for rows of both kinds",
    "unmatched": "have a key that the result does not know; kept",
    "keyless": "have no key; kept",
    "without_witness": "are dropped in the result, but the row that stays is not here; kept",
}


@main.command(short_help="drop the duplicates from another copy of the metadata")
@click.argument("out", type=PATH)
@click.argument("metadata", type=str)
@click.argument("dest", type=PATH)
@click.option(
    "--key",
    default="url",
    show_default=True,
    metavar="COLUMN[,COLUMN]",
    help="columns that tell which row is which, in both: url, sha256, …",
)
@click.option(
    "--ambiguous",
    type=click.Choice(["keep", "drop", "error"]),
    default="keep",
    show_default=True,
    help="what becomes of rows whose key stands for rows that stay and rows that are dropped",
)
@worker_settings
@overwriting
@verbosity
def apply(
    out: AnyPath,
    metadata: str,
    dest: AnyPath,
    key: str,
    ambiguous: str,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write METADATA, another copy of what OUT was made from, to DEST without the dropped rows.

    METADATA is a folder, a file or a pattern of parquet or CSV files (.csv, or .tsv with tabs, with
    a header). Its order may be another, rows may be missing, and others may be there. Nothing is
    dropped unless the result has dropped it: rows whose key it does not know, or that have none,
    are kept, and so is a dropped row if the row that stays in its place is not in METADATA. A key
    that is a number in the one and text in the other is refused, but for CSV files.

    \b
    DEST/metadata              the files, with their names, columns, types and order
    DEST/ambiguous.parquet     keys that stand for rows of both kinds
    DEST/unmatched_metadata    rows whose key the result does not know
    DEST/unmatched_result      rows of the result that METADATA does not have
    DEST/summary.json          all counts

    The same command again continues where it was stopped.

    Exit codes: 0 done, 2 wrong input or settings, or DEST holds something else, 130 interrupted,
    143 terminated.
    """  # noqa: D301  \b is a character: click leaves the lines below it as they are
    console = open_console(verbose, quiet)
    settings = chosen_settings(options, used=("compute", "cluster"))
    from dask_dedup.results.apply import apply as apply_decisions

    workers = workers_and_progress(console, settings, dest, stages=dest / "stages")
    with workers as (execute, progress):
        summary = apply_decisions(
            out,
            metadata,
            dest,
            key=key,
            ambiguous=ambiguous,
            overwrite=overwrite,
            execute=execute,
            progress=progress,
        )
    if not quiet:
        _print(summary, dest, Console())


def _print(summary: dict[str, Any], dest: AnyPath, console: Console) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for side in ("right", "left"):
        table.add_column(justify=side)
    for name, meaning in _MEANINGS.items():
        if summary["metadata"][name] or name in ("kept", "dropped"):
            table.add_row(f"{summary['metadata'][name]:,}", f"rows {meaning}")
    missing = summary["result"]["unmatched"]
    if missing:
        table.add_row(f"{missing:,}", "rows of the result are not here")
    if summary["ambiguous_keys"]:
        table.add_row(f"{summary['ambiguous_keys']:,}", "keys stand for rows of both kinds")
    console.print(table)
    say(console, f"{summary['rows']:,} of {summary['metadata_rows']:,} rows written to {dest}")
