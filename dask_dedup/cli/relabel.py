"""`dask-dedup relabel`: the result of a finished run at another threshold, in another folder."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import interruptible
from dask_dedup.cli.group import PATH, main, open_console, say, setting, switch, verbosity
from dask_dedup.cli.run import print_summary
from dask_dedup.paths import AnyPath
from dask_dedup.settings.option_names import OPTIONS

__all__ = ["relabel"]


@main.command("relabel", short_help="write a finished run's result at another threshold")
@click.argument("out", type=PATH)
@click.argument("dest", type=PATH)
@click.option("--threshold", type=float, help="cosine from which on two rows are duplicates")
@click.option(
    "--keep-fraction",
    type=float,
    help="instead: the highest threshold that keeps at most this share of the rows, such as 0.6",
)
@click.option("--dataset", type=PATH, help="where the data set lies now [default: where it was]")
@setting("workers", int)
@setting("threads", int)
@setting("work", str)
@setting("memory", str)
@setting("cluster", str)
@switch("dashboard")
@click.option("--overwrite", is_flag=True, help="begin anew, whatever an earlier run left in DEST")
@click.option(
    "--break-lock", is_flag=True, help="take DEST, a URL, from a run that has died elsewhere"
)
@verbosity
def relabel(
    out: AnyPath,
    dest: AnyPath,
    threshold: float | None,
    keep_fraction: float | None,
    dataset: AnyPath | None,
    overwrite: bool,
    break_lock: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write the result of the finished run in OUT at another threshold into DEST.

    The clusters are those of a run of its own, from the forest in OUT: nothing is searched. OUT
    stays as it is, and DEST is complete without it. `dask-dedup sweep OUT` tells what each
    threshold would find.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted, 143 terminated.
    """
    console = open_console(verbose, quiet)
    from dask_dedup.pipeline.relabel_into import relabel as relabel_into
    from dask_dedup.report.progress import choose_progress

    names = {key.replace(".", "__"): name for name, key in OPTIONS.items()}
    with interruptible(console):
        summary = relabel_into(
            out,
            dest,
            threshold,
            keep_fraction=keep_fraction,
            dataset=dataset,
            overwrite=overwrite,
            break_lock=break_lock,
            progress=choose_progress(console),
            say=partial(say, console),
            **{names[name]: value for name, value in options.items()},
        )
    if not quiet:
        print_summary(summary, dest, Console())
