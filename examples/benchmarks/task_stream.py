"""What the workers did when: the task stream of one run, as a table and a picture.

For each stage: its wall time, from its first task's start to its last task's end, and the share of
it in which each worker had a task. Time between the stages is the driver's.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from dask.utils import key_split
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from dask_dedup.pipeline.run import run
from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.runtime.deployment import local_cluster
from dask_dedup.settings.run_settings import Settings

#: The stage of a task, by the beginning of its name; what is missing here belongs to the fit.
STAGES = {
    "layout": "layout",
    "join": "join",
    "forests": "forest",
    "labels": "clusters",
    "clusters": "clusters",
}
COLOURS = {
    "fit": "#8d6bb8",
    "layout": "#1f6f8b",
    "join": "#d1793f",
    "forest": "#4c9a5b",
    "clusters": "#b23a48",
}


def stage_of(key: str) -> str:
    """Return the stage that a task belongs to."""
    name = key_split(key)
    return next((stage for start, stage in STAGES.items() if name.startswith(start)), "fit")


def record_run(data: Path, workers: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run on a local cluster; return what each worker did when, and the summary."""
    settings = Settings(compute={"workers": workers})  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        with local_cluster(settings.compute, Path(folder, "scratch"), preload=PRELOAD) as execute:
            execute.client.get_task_stream()  # begins to collect
            began = time.time()
            summary = run(data, Path(folder, "out"), settings, execute=execute)
            stream = execute.client.get_task_stream(start=0, count=None)
        shutil.rmtree(Path(folder, "out"), ignore_errors=True)
    pieces = [
        {
            "stage": stage_of(task["key"]),
            "worker": task["worker"],
            "action": piece["action"],
            "start": piece["start"] - began,
            "stop": piece["stop"] - began,
        }
        for task in stream
        for piece in task["startstops"]
    ]
    return pieces, summary


def busy_shares(pieces: list[dict[str, Any]]) -> dict[str, tuple[float, float, list[float]]]:
    """Return for each stage its start, its wall seconds, and each worker's busy share of them."""
    spans: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for piece in pieces:
        spans[piece["stage"]].append(piece)
    workers = sorted({piece["worker"] for piece in pieces})
    shares = {}
    for stage, own in spans.items():
        start, stop = min(p["start"] for p in own), max(p["stop"] for p in own)
        busy = [
            sum(p["stop"] - p["start"] for p in own if p["worker"] == worker) for worker in workers
        ]
        shares[stage] = (start, stop - start, [min(1.0, b / (stop - start)) for b in busy])
    return dict(sorted(shares.items(), key=_start))


def _start(item: tuple[str, tuple[float, float, list[float]]]) -> float:
    return item[1][0]


def plot(pieces: list[dict[str, Any]], path: Path) -> None:
    """Draw a line for each worker, a bar for each task."""
    workers = sorted({piece["worker"] for piece in pieces})
    figure = Figure(figsize=(10, 0.7 * len(workers) + 1.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    for stage, colour in COLOURS.items():
        for row, worker in enumerate(workers):
            bars = [
                (p["start"], p["stop"] - p["start"])
                for p in pieces
                if p["stage"] == stage and p["worker"] == worker
            ]
            axes.broken_barh(bars, (row - 0.4, 0.8), color=colour, edgecolor="white", linewidth=0.3)
        axes.plot([], [], color=colour, linewidth=6, label=stage)
    axes.set_yticks(range(len(workers)), [f"worker {i + 1}" for i in range(len(workers))])
    axes.set_xlabel("seconds")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plot", type=Path, default=Path("task_stream.png"))
    arguments = parser.parse_args()
    pieces, summary = record_run(arguments.data, arguments.workers)
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "starts at", "seconds", "busy", "the idlest worker idles"):
        table.add_column(name, justify="right")
    for stage, (start, seconds, busy) in busy_shares(pieces).items():
        shares = ", ".join(f"{share:.0%}" for share in busy)
        table.add_row(stage, f"{start:.1f}", f"{seconds:.1f}", shares, f"{1 - min(busy):.0%}")
    console = Console()
    console.print(table)
    console.print(
        f"{summary['rows']:,} rows, {summary['wall_seconds']} s; picture: {arguments.plot}"
    )
    plot(pieces, arguments.plot)


if __name__ == "__main__":
    main()
