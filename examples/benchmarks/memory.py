"""What each worker's memory was, moment by moment, in one run under a limit: a table and a picture.

python examples/benchmarks/memory.py [--rows 1e7] [--workers 2] [--memory 2GB] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from synthetic import generate

from dask_dedup.pipeline.run import run
from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.runtime.client_executor import ClientExecutor
from dask_dedup.runtime.deployment import local_cluster
from dask_dedup.runtime.executor import NoProgress
from dask_dedup.settings.run_settings import Settings, load_settings

STAGES = ["fit", "layout", "join", "forest", "witnesses", "clusters"]
COLOURS = ["#1f6f8b", "#d1793f", "#4c9a5b", "#b23a48"]
HERE = Path(__file__).parent
_SECONDS = 0.5


class Watch(NoProgress):
    """Notes the resident memory of each worker and of this process, and the size of the work."""

    def __init__(self, execute: ClientExecutor, work: Path) -> None:
        self.execute, self.work = execute, work
        self.began = time.monotonic()
        self.marks: list[tuple[float, str]] = []
        self.samples: list[tuple[float, str, int]] = []  # second, who, bytes
        self.work_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self, stage: str, rows: int) -> None:
        """Note when a stage begins."""
        self.marks.append((self.now, stage))

    @property
    def now(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self.began

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        rounds, known = 0, {}
        while not self._stop.wait(_SECONDS):
            if rounds % 20 == 0:  # a worker that was lost has another process
                pids = self.execute.client.run(os.getpid)
                known = {f"worker {i}": pid for i, (_, pid) in enumerate(sorted(pids.items()), 1)}
                known["driver"] = os.getpid()
                sizes = (path.stat().st_size for path in self.work.rglob("*") if path.is_file())
                self.work_bytes = max(self.work_bytes, sum(sizes))
            rounds += 1
            for who, pid in known.items():
                try:
                    self.samples.append((self.now, who, psutil.Process(pid).memory_info().rss))
                except psutil.NoSuchProcess:
                    continue


def plot(watch: Watch, limit: int, path: Path) -> None:
    """Draw memory over time, a line for each worker."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.add_subplot()
    lines = defaultdict(list)
    for second, who, size in watch.samples:
        lines[who].append((second, size / 1e9))
    for colour, who in zip(COLOURS, sorted(lines, reverse=True), strict=False):
        axes.plot(*zip(*lines[who], strict=True), label=who, color=colour, linewidth=1.2)
    axes.axhline(limit / 1e9, color="black", linestyle="--", linewidth=1)
    axes.annotate("limit of a worker", (0, limit / 1e9), (2, 3), textcoords="offset points")
    for second, stage in watch.marks:
        axes.axvline(second, color="#bbbbbb", linewidth=0.8)
        axes.annotate(
            stage, (second, 0), (2, 2), textcoords="offset points", rotation=90, fontsize=8
        )
    axes.set(xlabel="seconds", ylabel="resident memory (GB)", ylim=(0, 1.3 * limit / 1e9))
    axes.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=120)


def peaks(watch: Watch) -> dict[str, dict[str, float]]:
    """Return by process and stage the largest resident memory in bytes."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for second, who, size in watch.samples:
        stage = next((name for start, name in reversed(watch.marks) if start <= second), "start")
        found[who][stage] = max(found[who][stage], size)
    return found


def main() -> None:
    """Generate rows where there are none, run, print, write the picture and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--data", type=Path, help="data set [default: synthetic, in bench/]")
    parser.add_argument("--out", type=Path, default=Path("bench/memory"))
    parser.add_argument("--report", type=Path, default=HERE / "memory.json")
    arguments = parser.parse_args()
    data = arguments.data or Path(f"bench/synthetic-{arguments.rows:.0f}x512-seed0")
    if not data.exists():
        generate(data, int(arguments.rows), 512, seed=0)
    asked = {"compute.workers": arguments.workers, "compute.memory": arguments.memory}
    settings: Settings = load_settings(None, asked)
    limit = settings.compute.memory or 0
    with (
        local_cluster(settings.compute, arguments.out / "scratch", preload=PRELOAD) as execute,
        Watch(execute, arguments.out) as watch,
    ):
        out = arguments.out / "out"
        summary = run(data, out, settings, overwrite=True, execute=execute, progress=watch)
    found = peaks(watch)
    table = Table("process", *STAGES, "of the limit")
    for who in sorted(found, reverse=True):
        sizes = [found[who].get(stage, 0) for stage in STAGES]
        share = "" if who == "driver" else f"{max(sizes) / limit:.0%}"
        table.add_row(who, *(f"{size / 1e9:.2f} GB" for size in sizes), share)
    Console().print(table)
    figures = {
        "rows": summary["rows"],
        "workers": arguments.workers,
        "limit_bytes": limit,
        "peak_bytes": found,
        "work_bytes": watch.work_bytes,
        "stages": summary["stages"],
        "audit": summary["audit"],
        "duplicates": summary["duplicates"],
    }
    arguments.report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    plot(watch, limit, arguments.report.with_suffix(".png"))
    print(f"working files: {watch.work_bytes / 1e9:.1f} GB; written: {arguments.report}, .png")


if __name__ == "__main__":
    main()
