"""`dask-dedup relabel`: the result of a finished run at another threshold, in another folder."""

from __future__ import annotations

import os
from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.group import PATH, configure_logging, main, setting, switch
from dask_dedup.cli.run import print_summary
from dask_dedup.cli.terminal import end_code, end_word, seconds_so_far
from dask_dedup.paths import AnyPath
from dask_dedup.runtime.forkserver import stop_server
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
@click.option(
    "--data", type=PATH, help="where the data set lies now [default: where it was read from]"
)
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
@click.option("-v", "--verbose", is_flag=True, help="log what is done and why")
@click.option("-q", "--quiet", is_flag=True, help="print errors only")
def relabel(
    out: AnyPath,
    dest: AnyPath,
    threshold: float | None,
    keep_fraction: float | None,
    data: AnyPath | None,
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
    console = Console(stderr=True, quiet=quiet)
    tell = configure_logging(console, verbose, quiet)
    from dask_dedup.pipeline.relabel_into import relabel as relabel_into
    from dask_dedup.report.progress import choose_progress

    names = {key.replace(".", "__"): name for name, key in OPTIONS.items()}
    try:
        result = relabel_into(
            out,
            dest,
            threshold,
            keep_fraction=keep_fraction,
            dataset=data,
            overwrite=overwrite,
            break_lock=break_lock,
            progress=choose_progress(console, tell),
            say=tell,
            **{names[name]: value for name, value in options.items()},
        )
    except KeyboardInterrupt as stop:
        console.print(f"\n{end_word(stop)}; the same command continues where this stopped")
        stop_server()
        os._exit(end_code(stop))  # workers and their threads are gone with the cluster
    if not quiet:
        print_summary(result, dest, Console(), seconds_so_far() if result.is_new else None)
