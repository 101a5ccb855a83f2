"""`dask-dedup status`: the progress of a run."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.group import PATH, main, say
from dask_dedup.paths import AnyPath

__all__ = ["status"]


@main.command(short_help="report the progress of a run")
@click.argument("out", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option(
    "--verify", is_flag=True, help="read every file of a finished result, to its last page"
)
def status(out: AnyPath, as_json: bool, verify: bool) -> None:
    """Report stage by stage what the run into OUT has done and what is left.

    It reads OUT alone, while the run goes on as well as after it was stopped or killed. The time
    left is extrapolated from the running stage's speed; later stages use the plan.

    Exit codes: 0 done, 2 OUT holds no run, or a finished one whose results are missing or damaged.
    """
    from dask_dedup.pipeline.status import run_status
    from dask_dedup.report.plan_table import span_text
    from dask_dedup.storage.lock_holder import holder_text

    report = run_status(out, verify)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        sys.exit(2 if report.get("damage") else 0)
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "state", "tasks", "time", "left"):
        table.add_column(name, justify="left" if name in ("stage", "state") else "right")
    for stage in report["stages"]:
        tasks = "" if stage["tasks"] is None else f"{stage['done']:,} of {stage['tasks']:,}"
        elapsed = span_text(stage["elapsed"]) if stage["elapsed"] else ""
        left = "?" if stage["left"] is None else span_text(stage["left"]) if stage["left"] else ""
        table.add_row(stage["name"], stage["state"], tasks, elapsed, left)
    if report["stages"]:
        console.print(table)
        console.print()
    if report["state"] == "finished":
        seconds = report["wall_seconds"]
        say(console, f"{out}: finished" + ("" if seconds is None else f", in {span_text(seconds)}"))
        for line in report["damage"]:
            say(console, line)
        if report["damage"]:
            say(console, "the result is not whole: put the files back, or begin anew (--overwrite)")
            sys.exit(2)
    else:
        left = report["seconds_left"]
        more = "; the same command continues" if report["state"] == "stopped" else ""
        time = "" if left is None else f"; about {span_text(left)} left"
        say(console, f"{out}: {report['state']}{time}{more}")
    if "holder" in report:
        renewed = report["holder"].get("renewed_seconds")
        sign = "" if renewed is None else f"; its last heartbeat is {renewed:.0f} s old"
        say(console, f"{holder_text(report['holder'])}{sign}")
