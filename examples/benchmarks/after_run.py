"""What the steps after a run cost: page, thresholds, keep rules, exports, apply, show.

    python examples/benchmarks/after_run.py --rows 1e6 --kind near

makes a data set as `skew.py` does (``near``: one cluster of 30 % of the rows), runs `dask-dedup
run` on it, and then each command that reads the result: seconds of the whole command, peak memory
of all its processes, and bytes written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scoring import run_measured
from skew import KINDS, ROOT, plant
from synthetic import generate

PROGRAM = str(Path(sys.executable).with_name("dask-dedup"))


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kind", choices=KINDS, default="near")
    parser.add_argument("--share", type=float, help="of the rows that --kind overwrites")
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / "after")
    arguments = parser.parse_args()
    work = arguments.work
    share = "" if arguments.share is None else f"-{arguments.share:g}"
    data = work / f"{arguments.kind}{share}-{int(arguments.rows)}x{arguments.dim}"
    if not data.exists():
        aside = data.with_suffix(".partial")
        shutil.rmtree(aside, ignore_errors=True)
        generate(aside, int(arguments.rows), arguments.dim)
        if arguments.kind != "plain":
            plant(aside, arguments.kind, 0, arguments.share)
        aside.rename(data)
    out = work / "out"
    table = Table(box=None, pad_edge=False)
    for name in ("command", "seconds", "peak memory", "written"):
        table.add_column(name, justify="left" if name == "command" else "right")

    def measure(*words: str, written: Path | None = None) -> None:
        seconds, peak_bytes = run_measured([PROGRAM, *words], threads=2)
        size = sum(p.stat().st_size for p in written.rglob("*") if p.is_file()) if written else 0
        shown = f"{size / 1e6:,.1f} MB" if written else ""
        name = " ".join("OUT" if word == str(out) else word.split("/")[-1] for word in words)
        table.add_row(name, f"{seconds:.1f}", f"{peak_bytes / 1e9:.2f} GB", shown)

    measure("run", str(data), str(out), "--overwrite", "-q", written=out)
    summary = json.loads((out / "summary.json").read_text())
    measure("report", str(out), "-q", written=out / "report")
    measure("sweep", str(out))
    for name, words in {
        "relabelled": ("relabel", "--threshold", "0.98"),
        "kept": ("keep", "--keep", "length(caption) desc"),
        "clean": ("export",),
        "table": ("export", "--format", "parquet"),
    }.items():
        target = work / name
        command, *options = words
        measure(command, str(out), str(target), *options, "--overwrite", "-q", written=target)
    target = work / "applied"
    measure(
        *("apply", str(out), str(data / "metadata"), str(target), "--overwrite", "-q"),
        written=target,
    )
    measure("show", str(out), "--row", "0", "--json")
    console = Console()
    times = ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in summary["stages"])
    console.print(
        f"{summary['rows']:,} rows, {summary['duplicates']:,} duplicates, the largest cluster "
        f"{summary['largest_cluster']:,}; {summary['dropped']:,} dropped"
    )
    console.print(f"the run's stages: {times}")
    console.print(table)


if __name__ == "__main__":
    main()
