"""`dask-dedup warm-up`: compile the kernels now, so that no run has to."""

from __future__ import annotations

import logging

import click
from rich.console import Console

from dask_dedup.cli.group import main, say

__all__ = ["warm_up"]


@main.command("warm-up", short_help="compile the kernels, so that the first run need not")
@click.option("-q", "--quiet", is_flag=True, help="print errors only")
def warm_up(quiet: bool) -> None:
    """Compile the numerical kernels and keep them, which the first run would do otherwise.

    They are kept beside the package, or where that cannot be written in the user's cache; they are
    compiled anew after an update, and for another type of processor.
    """
    from dask_dedup.pipeline.warm_up import COMPILE_SECONDS, are_compiled
    from dask_dedup.pipeline.warm_up import warm_up as compile_all

    console = Console(stderr=True, quiet=quiet)
    if not are_compiled():
        say(console, f"compiling kernels (once): about {COMPILE_SECONDS} s")
    logging.getLogger("dask_dedup").setLevel(logging.ERROR)  # the data set is made up
    compile_all()
    say(console, "kernels are compiled")
