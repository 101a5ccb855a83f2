"""`dask-dedup report`: the page of a finished run."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import lazy_workers
from dask_dedup.cli.group import (
    PATH,
    chosen_settings,
    flag,
    main,
    open_console,
    say,
    setting,
    verbosity,
    worker_settings,
)
from dask_dedup.cli.own_files import refuse_other_page
from dask_dedup.paths import AnyPath

__all__ = ["report"]

_ALONE_ROWS = 5_000_000  # so many take less time here than workers take to start
_PREFIX = "report__"


@main.command("report", short_help="make the page that shows a finished run")
@click.argument("out", type=PATH)
@click.argument("dest", type=PATH, required=False)
@setting("images", str)
@setting("thumbnails", int)
@flag("load_urls")
@click.option(
    "--dataset", type=PATH, help="where the data set lies now [default: where it was read from]"
)
@click.option(
    "--precision",
    type=PATH,
    metavar="PAIRS_CSV",
    help="labelled pairs of dask-dedup sample: their precision is drawn into the sweep",
)
@worker_settings
@verbosity
def report(
    out: AnyPath,
    dest: AnyPath | None,
    dataset: AnyPath | None,
    precision: AnyPath | None,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Make the page that shows the finished run in OUT: one HTML file, which needs nothing else.

    DEST is an HTML file, or a folder; without it, OUT/report/index.html is made anew.

    \b
    dask-dedup report OUT --images "photos/{key}.jpg" --thumbnails 500
    dask-dedup report OUT page.html --images "{shard}.tar#{key}" --dataset /data/tars
    dask-dedup report OUT --precision pairs.csv

    The page asks nobody for anything: pictures are loaded from the rows' URLs on a click, or with
    --load-urls. Local pictures are put into it, at most 160 pixels wide: those in the folder images
    of the data set, found by the column key, or those that --images names. {shard} is the column
    of that name or, without one, the key less its last four digits, as img2dataset makes keys.

    Exit codes: 0 done, 2 wrong input or settings, or OUT holds no finished run.
    """  # noqa: D301  click reads \b as a character
    open_console(verbose, quiet)
    from dask_dedup.results.finished_run import open_finished
    from dask_dedup.results.report import page_path
    from dask_dedup.results.report import report as make_page
    from dask_dedup.runtime.executor import compute_tasks

    own = {name.removeprefix(_PREFIX): options.pop(name) for name in _own_options(options)}
    asked = [name for name, value in options.items() if value not in (None, ())]
    settings = chosen_settings(options, used=("compute", "cluster"))
    if dest is not None:
        refuse_other_page(page_path(out, dest))
    few = open_finished(out).summary["rows"] <= _ALONE_ROWS
    with lazy_workers(settings, page_path(out, dest).parent) as workers:
        execute = compute_tasks if few and not asked else workers
        path = make_page(out, dest, dataset=dataset, precision=precision, execute=execute, **own)
    if not quiet:
        say(Console(), f"page: {path}")


def _own_options(options: dict[str, Any]) -> list[str]:
    return [name for name in options if name.startswith(_PREFIX)]
