"""`dask-dedup relabel` and `keep`: the result of a finished run chosen anew, in another folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import interruptible
from dask_dedup.cli.group import (
    PATH,
    configure_logging,
    keep_settings,
    main,
    setting,
    switch,
    verbosity,
)
from dask_dedup.cli.run import print_summary
from dask_dedup.cli.terminal import seconds_so_far
from dask_dedup.paths import AnyPath
from dask_dedup.settings.option_names import OPTIONS

__all__ = ["keep", "relabel"]


def _common(command: Callable) -> Callable:
    """Add the arguments and options of both commands."""
    for option in (
        verbosity,
        click.option(
            "--break-lock",
            is_flag=True,
            help="take DEST, a URL, from a run that has died elsewhere",
        ),
        click.option(
            "--overwrite", is_flag=True, help="begin anew, whatever an earlier run left in DEST"
        ),
        switch("dashboard"),
        setting("cluster", str),
        setting("memory", str),
        setting("work", str),
        setting("threads", int),
        setting("workers", int),
        click.option(
            "--dataset", type=PATH, help="where the data set lies now [default: where it was]"
        ),
        keep_settings,
    ):
        command = option(command)
    return command


@main.command("relabel", short_help="write a finished run's result at another threshold")
@click.argument("out", type=PATH)
@click.argument("dest", type=PATH)
@click.option("--threshold", type=float, help="cosine from which on two rows are duplicates")
@click.option(
    "--keep-fraction",
    type=float,
    help="instead: the highest threshold that keeps at most this share of the rows, such as 0.6",
)
@_common
def relabel(
    out: AnyPath,
    dest: AnyPath,
    threshold: float | None,
    keep_fraction: float | None,
    **options: Any,
) -> None:
    """Write the result of the finished run in OUT at another threshold into DEST.

    The clusters are those of a run of its own, from the forest in OUT: nothing is searched. OUT
    stays as it is, and DEST is complete without it. `dask-dedup sweep OUT` says what each
    threshold would find. Rules of which copies stay that are not given are those of OUT; "" is for
    none.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted, 143 terminated.
    """
    from dask_dedup.pipeline.relabel_into import relabel as relabel_into

    _write(relabel_into, out, dest, options, threshold=threshold, keep_fraction=keep_fraction)


@main.command("keep", short_help="choose anew which copies of a finished run stay")
@click.argument("out", type=PATH)
@click.argument("dest", type=PATH)
@_common
def keep(out: AnyPath, dest: AnyPath, **options: Any) -> None:
    r"""Choose anew which copies of the finished run in OUT stay, and write the result into DEST.

    \b
    dask-dedup keep OUT DEST --keep "width*height desc, length(caption) desc"
    dask-dedup keep OUT DEST --protect "source = 'gold'" --max-per-cluster 1
    dask-dedup keep OUT DEST --merge caption=distinct
    dask-dedup keep OUT DEST --decisions decisions.csv

    The clusters are those of OUT. In each, the copies that are wanted most stay, and a row is
    dropped only if one that stays is at the threshold or above to it (with --linkage star; rows
    dropped for --max-per-cluster or by decision alone are counted apart). OUT stays as it is, and
    DEST is complete without it. Rules that are not given are those of OUT; "" is for none.

    Expressions are SQL, as DuckDB reads it, over your columns and row_id.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted, 143 terminated.
    """
    from dask_dedup.pipeline.relabel_into import keep as keep_into

    _write(keep_into, out, dest, options)


def _write(
    function: Callable, out: AnyPath, dest: AnyPath, options: dict[str, Any], **own: Any
) -> None:
    """Run a command, and print what it has found."""
    quiet, verbose = options.pop("quiet"), options.pop("verbose")
    console = Console(stderr=True, quiet=quiet)
    say_line = configure_logging(console, verbose, quiet)
    from dask_dedup.report.progress import choose_progress

    flags = {name: options.pop(name) for name in ("overwrite", "break_lock")}
    names = {key.replace(".", "__"): name for name, key in OPTIONS.items()}
    with interruptible(console):
        result = function(
            out,
            dest,
            **own,
            **flags,
            dataset=options.pop("dataset"),
            progress=choose_progress(console, say_line),
            say=say_line,
            **{names[name]: value for name, value in options.items()},
        )
    if not quiet:
        print_summary(result, dest, Console(), seconds_so_far() if result.is_new else None)
