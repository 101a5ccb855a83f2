"""Compare dask_dedup with its rivals on synthetic rows: `make bench`.

1. Generate the data set (`synthetic.py`), once; it stays in `bench/`.
2. Find the truth of a seeded sample of rows by brute force, decided in float64; kept, too.
3. Run each contender (`contenders.py`) as a process of its own, on the same cores, one after the
   other, the files in the page cache: wall time of the whole command, peak memory of its processes.
4. Judge all of them by the same truth; write `bench/results.json` and `RESULTS.md`, print a table.

One run on the example data set comes first, so that numba's compiled kernels lie on the disk.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from contenders import CHECKED_EDGES, CONTENDERS, TRAINING_ROWS_PER_CELL, Job
from judging import describe_machine, edges_that_hold, judge, read_through, run_measured
from rich.console import Console
from rich.table import Table
from rivals import ITERATIONS, exact_pairs_of
from synthetic import generate

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
REPORT = Path(__file__).with_name("RESULTS.md")
EXAMPLE = ROOT / "examples" / "data" / "clipart"
QUERIES = 4000  # a third of the rows have a duplicate
THRESHOLD = 0.95

COLUMNS = (
    "contender",
    "seconds",
    "rows/s and core",
    "peak memory",
    "pair recall",
    "all united (95 % interval)",
    "duplicates",
    "largest cluster",
    "edges that hold",
)
NOTES = (
    f"Seconds: wall time of the whole command, imports included; the files are in the page cache. "
    f"dask-dedup runs with default settings. faiss gets as many cells; its k-means is trained on "
    f"{TRAINING_ROWS_PER_CELL} rows per cell, in {ITERATIONS} iterations: more take minutes.",
    "Peak memory: summed resident memory of the processes; shared pages count in each.",
    f"Truth: all pairs of {QUERIES:,} sampled rows, found by brute force and decided in float64. "
    "Pair recall: true pairs that are in one cluster. All united: sampled rows, of those with a "
    "pair, that share a cluster with every true partner (Clopper-Pearson).",
    f"Edges that hold: of up to {CHECKED_EDGES:,} sampled edges that make the clusters, those at "
    "or above the threshold in float64.",
)


def prepare_data(rows: int, dim: int, seed: int, skip_generate: bool, console: Console) -> Path:
    """Return the folder of the data set; generate it if it is not there."""
    folder = BENCH / f"synthetic-{rows}x{dim}-seed{seed}"
    if folder.exists():
        return folder
    if skip_generate:
        raise SystemExit(f"{folder} is missing; leave out --skip-generate to have it made.")
    console.print(f"generating {rows:,} rows of {dim} into {folder.relative_to(ROOT)}")
    aside = folder.with_suffix(".partial")
    shutil.rmtree(aside, ignore_errors=True)
    generate(aside, rows, dim, seed=seed)
    return aside.rename(folder)


def prepare_truth(data: Path, job: Job, console: Console) -> pd.DataFrame:
    """Return every true pair of the sampled query rows; compute it if it is not there."""
    path = data / f"truth-{job.threshold:g}-{QUERIES}.parquet"
    if not path.exists():
        console.print(f"brute force for {QUERIES:,} rows")
        rows = np.random.default_rng(job.seed).permutation(job.rows)[:QUERIES]
        pairs = exact_pairs_of(data, np.sort(rows), job.threshold, job.threads)
        aside = path.with_suffix(".partial")
        pairs.to_parquet(aside)
        aside.rename(path)
    return pd.read_parquet(path)


def run_contender(name: str, job: Job, truth: pd.DataFrame, console: Console) -> dict[str, Any]:
    """Run, measure and judge one contender."""
    contender = CONTENDERS[name]
    command = contender.command(name, job)
    console.rule(name)
    read_through(Path(job.data))
    seconds, peak_bytes = run_measured(command, job.threads)
    outcome = contender.read(name, job)
    return {
        "contender": name,
        "title": outcome.title,
        "note": outcome.note,
        "command": shlex.join(command).replace(f"{ROOT}/", ""),
        "wall_seconds": round(seconds, 2),
        "rows_per_second_and_core": round(job.rows / seconds / job.threads, 1),
        "peak_memory_bytes": peak_bytes,
        "stages": {stage: round(value, 2) for stage, value in outcome.seconds.items()},
        **judge(outcome.labels, truth),
        "checked_edges": len(outcome.edges),
        "edges_that_hold": edges_that_hold(job.data, outcome.edges, job.threshold),
        **outcome.facts,
    }


def table_row(result: dict[str, Any]) -> list[str]:
    """Return the cells of a contender's line."""
    return [
        result["title"],
        f"{result['wall_seconds']:.1f}",
        f"{result['rows_per_second_and_core']:,.0f}",
        f"{result['peak_memory_bytes'] / 1e9:.2f} GB",
        f"{result['pair_recall']:.2%}",
        f"{result['all_united_share']:.2%} ({result['all_united_low']:.2%} to "
        f"{result['all_united_high']:.2%})",
        f"{result['duplicates']:,}",
        f"{result['largest_cluster']:,}",
        f"{result['edges_that_hold']:.3%}",
    ]


def stage_lines(results: list[dict[str, Any]]) -> list[str]:
    """Return one line for each contender: what it spent its time on, by its own clock."""
    return [
        f"{result['title']}: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["stages"].items())
        + f" ({result['note']})"
        for result in results
    ]


def write_report(path: Path, outcome: dict[str, Any]) -> None:
    """Write the table, how it was made and where, as Markdown."""
    machine, results = outcome["machine"], outcome["results"]
    rows = [list(COLUMNS), ["---", *["---:"] * (len(COLUMNS) - 1)], *map(table_row, results)]
    versions = [f"{name} {value}" for name, value in list(machine.items())[4:]]
    lines = [
        "# dask_dedup and its rivals",
        "",
        f"{outcome['rows']:,} synthetic rows of {outcome['dim']} (`synthetic.py`, seed "
        f"{outcome['seed']}), cosine ≥ {outcome['threshold']:g}, {outcome['threads']} cores. "
        f"Measured on {outcome['date']} by",
        "",
        f"    {outcome['command']}",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {note}" for note in NOTES),
        "",
        "Seconds by stage:",
        "",
        *(f"- {line}" for line in stage_lines(results)),
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB of memory, {machine['system']}.",
        f"Versions: {', '.join(versions)}.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def print_table(results: list[dict[str, Any]], console: Console) -> None:
    """Print what the report shows, a column for each contender."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for values in zip(COLUMNS, *map(table_row, results), strict=True):
        table.add_row(*values)
    console.print(table)
    for line in stage_lines(results):
        console.print(line, highlight=False)


def main() -> None:
    """Read the command line, compare, report."""
    parser = argparse.ArgumentParser(description="dask_dedup against its rivals.")
    parser.add_argument("--rows", type=float, default=1e6, help="1e6 is understood")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2, help="cores that each contender gets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--skip-generate", action="store_true", help="fail where data is missing")
    arguments = parser.parse_args()
    console = Console()
    rows = int(arguments.rows)
    BENCH.mkdir(exist_ok=True)
    data = prepare_data(rows, arguments.dim, arguments.seed, arguments.skip_generate, console)
    work = BENCH / f"work-{data.name}"
    job = Job(str(data), str(work), rows, THRESHOLD, arguments.threads, arguments.seed)
    truth = prepare_truth(data, job, console)
    example = Job(str(EXAMPLE), str(BENCH / "warm-up"), 0, THRESHOLD, job.threads, job.seed)
    run_measured(CONTENDERS["dask-dedup"].command("clipart", example), job.threads)
    outcome = {
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "examples/benchmarks/bench.py", *sys.argv[1:]]),
        "dim": arguments.dim,
        **{key: value for key, value in asdict(job).items() if key not in ("data", "work")},
        "queries": QUERIES,
        "machine": describe_machine(),
        "results": [run_contender(name, job, truth, console) for name in arguments.contenders],
    }
    (BENCH / "results.json").write_text(json.dumps(outcome, indent=2) + "\n")
    write_report(REPORT, outcome)
    console.rule()
    print_table(outcome["results"], console)
    console.print(f"written: {REPORT.relative_to(ROOT)}, bench/results.json", highlight=False)


if __name__ == "__main__":
    main()
