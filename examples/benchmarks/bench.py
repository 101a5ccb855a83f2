"""Compare dask_dedup with its rivals on synthetic rows: `make bench`.

1. Generate the data set (`synthetic.py`), once; it stays in `bench/`. `--data` takes another one.
2. Find the truth of a seeded sample of rows by brute force, with cosines in float64; kept, too. A
   data set with an `exact_pairs.parquet` brings its own, for all rows.
3. Run each contender (`contenders.py`) as a process of its own, on the same cores, one after the
   other, the files in the page cache: wall time of the whole command, peak memory of its processes.
4. Score all of them by the same truth; write `bench/results.json` and `RESULTS.md`, print a table.
   `--report PATH.md` writes that and `PATH.json` instead.

One run on the example data set comes first, so that numba's compiled kernels lie on the disk.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError
from typing import Any

import numpy as np
import pandas as pd
from contenders import CHECKED_EDGES, CONTENDERS, TRAINING_ROWS_PER_CELL, Job
from environments import prepare_environment
from results import label_components, shape_of
from rich.console import Console
from rich.table import Table
from rivals import ITERATIONS, exact_pairs_of
from scoring import (
    describe_machine,
    edges_that_hold,
    read_through,
    run_measured,
    score,
    share_in_right_cluster,
)
from synthetic import generate

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
REPORT = Path(__file__).with_name("RESULTS.md")
EXAMPLE = ROOT / "examples" / "data" / "clipart"
QUERIES = 4000  # a third of the rows have a duplicate
THRESHOLD = 0.95
DEFAULT_CONTENDERS = ["dask-dedup", "faiss-ivf-flat-root"]
EXACT_NOTE = (
    "The truth of this data set is its exact_pairs.parquet: every row is a query here. Rows in the "
    "right cluster: those, with or without a pair, whose cluster is exactly their component of the "
    "exact pairs."
)

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
RIGHT, RATIO = "rows_in_right_cluster", "ratio_to_dask_dedup"  # columns that not all reports have
NOTES = (
    f"Seconds: wall time of the whole command, imports included; the files are in the page cache. "
    f"dask-dedup runs with default settings. The cells of faiss stand in its "
    f"name; its k-means is trained on {TRAINING_ROWS_PER_CELL} rows per cell, in {ITERATIONS} "
    "iterations: more take minutes.",
    "Peak memory: summed resident memory of the processes; shared pages count in each.",
    f"Truth: all pairs of {QUERIES:,} sampled rows, found by brute force; cosines in float64, "
    "rounded to float32 and compared so. Pair recall: true pairs that are in one cluster. All "
    "united: sampled rows, of those with a pair, that share a cluster with every true partner "
    "(Clopper-Pearson).",
    f"Edges that hold: of up to {CHECKED_EDGES:,} sampled edges that make the clusters, those "
    "whose cosine, so computed, is at or above the threshold.",
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


@dataclass(frozen=True)
class Truth:
    """What the contenders are scored by.

    Attributes
    ----------
    pairs : pandas.DataFrame
        `query_row`, `row` int64: all true pairs of the query rows.
    labels : numpy.ndarray or None
        int64, (rows,): every row's true component, where all pairs are known.
    """

    pairs: pd.DataFrame
    labels: np.ndarray | None = None


def exact_truth(data: Path, job: Job) -> Truth | None:
    """Return the truth of all rows from `exact_pairs.parquet`, None where it does not reach."""
    path = data / "exact_pairs.parquet"
    if not path.exists():
        return None
    pairs = pd.read_parquet(path, columns=["src", "dst", "similarity"])
    # The file starts at a threshold of its own, which its lowest pair comes close to.
    if job.threshold < round(float(pairs["similarity"].min()), 3):
        return None
    pairs = pairs[pairs["similarity"] >= np.float32(job.threshold)]
    src, dst = pairs["src"].to_numpy(), pairs["dst"].to_numpy()
    both = {"query_row": np.concatenate([src, dst]), "row": np.concatenate([dst, src])}
    return Truth(pd.DataFrame(both), label_components(src, dst, job.rows))


def sampled_truth(folder: Path, data: Path, job: Job, console: Console) -> Truth:
    """Return every true pair of the sampled query rows; compute it if it is not in `folder`."""
    path = folder / f"truth-{job.threshold:g}-{QUERIES}.parquet"
    if not path.exists():
        console.print(f"brute force for {QUERIES:,} rows")
        rows = np.random.default_rng(job.seed).permutation(job.rows)[:QUERIES]
        pairs = exact_pairs_of(data, np.sort(rows), job.threshold, job.threads)
        aside = path.with_suffix(".partial")
        pairs.to_parquet(aside)
        aside.rename(path)
    return Truth(pd.read_parquet(path))


def choose_contenders(names: list[str], rows: int, console: Console) -> dict[str, str | None]:
    """Return for each contender asked for why it cannot run, None if it can."""
    reasons: dict[str, str | None] = {}
    for name in CONTENDERS if "all" in names else names:
        contender = CONTENDERS[name]
        reasons[name] = None
        if rows > contender.largest:
            reasons[name] = f"meant for {contender.largest:,.0f} rows at most"
        elif contender.environment is not None:
            try:
                prepare_environment(contender.environment)
            except CalledProcessError:
                reasons[name] = f"its environment, env-{contender.environment}, could not be made"
        if reasons[name]:
            console.print(f"{name} is skipped: {reasons[name]}", highlight=False)
    return reasons


def run_contenders(
    reasons: dict[str, str | None], job: Job, truth: Truth, repeat: int, console: Console
) -> Iterator[list[dict[str, Any]]]:
    """Run all that can, one after the other, `repeat` times over; after each, yield all results.

    Their seconds are the median. Beside dask-dedup, the median of the ratios to its seconds in the
    same round. A rival that fails is taken out, and `reasons` says so.
    """
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(repeat):
        for name in [name for name, reason in reasons.items() if reason is None]:
            try:
                result = run_contender(name, job, truth, console)
            except CalledProcessError as error:
                if name == "dask-dedup":
                    raise
                reasons[name] = f"it failed with exit status {error.returncode}"
                console.print(f"{name}: {reasons[name]}", highlight=False)
                rounds.pop(name, None)
            else:
                rounds.setdefault(name, []).append(result)
            yield summarise(rounds, job)


def summarise(rounds: dict[str, list[dict[str, Any]]], job: Job) -> list[dict[str, Any]]:
    """Return one result for each contender, from those of its rounds."""
    own = rounds.get("dask-dedup")
    results = []
    for runs in rounds.values():
        seconds = [run["wall_seconds"] for run in runs]
        result = runs[-1] | {"wall_seconds": median(seconds), "wall_seconds_each": seconds}
        speed = job.rows / result["wall_seconds"] / job.threads
        result["rows_per_second_and_core"] = round(speed, 1)
        if own:
            pairs = zip(runs, own, strict=False)  # the last round may be under way
            ratios = [run["wall_seconds"] / ours["wall_seconds"] for run, ours in pairs]
            result["ratio_to_dask_dedup"] = round(median(ratios), 3)
        results.append(result)
    return results


def run_contender(name: str, job: Job, truth: Truth, console: Console) -> dict[str, Any]:
    """Run, measure and score one contender."""
    contender = CONTENDERS[name]
    command = contender.command(name, job)
    console.rule(name)
    read_through(Path(job.data))
    seconds, peak_bytes = run_measured(command, job.threads)
    outcome = contender.read(name, job)
    exact = {}
    if truth.labels is not None:
        exact = {"rows_in_right_cluster": share_in_right_cluster(outcome.labels, truth.labels)}
    return {
        "contender": name,
        "title": outcome.title,
        "note": outcome.note,
        "command": shlex.join(command).replace(f"{ROOT}/", ""),
        "wall_seconds": round(seconds, 2),
        "rows_per_second_and_core": round(job.rows / seconds / job.threads, 1),
        "peak_memory_bytes": peak_bytes,
        "stages": {stage: round(value, 2) for stage, value in outcome.seconds.items()},
        **score(outcome.labels, truth.pairs),
        **exact,
        "checked_edges": len(outcome.edges),
        "edges_that_hold": edges_that_hold(job.data, outcome.edges, job.threshold),
        **outcome.details,
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
        *([f"{result[RIGHT]:.2%}"] if RIGHT in result else []),
        *([f"{result[RATIO]:.2f}"] if RATIO in result else []),
    ]


def columns_of(results: list[dict[str, Any]]) -> list[str]:
    """Return the headings: some stand only where there is something to say."""
    further = {RIGHT: "rows in the right cluster", RATIO: "time ÷ dask-dedup's"}
    return [*COLUMNS, *(title for key, title in further.items() if key in results[0])]


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
    columns = columns_of(results)
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)], *map(table_row, results)]
    versions = [f"{name} {value}" for name, value in list(machine.items())[4:]]
    lines = [
        "# dask_dedup and its rivals",
        "",
        f"{outcome['rows']:,} {outcome['described']}, cosine ≥ {outcome['threshold']:g}, "
        f"{outcome['threads']} cores. Measured on {outcome['date']} by",
        "",
        f"    {outcome['command']}",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {note}" for note in (*NOTES, *outcome["notes"])),
        *(f"- Not run: {name}, {reason}." for name, reason in outcome["not_run"].items()),
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
    for values in zip(columns_of(results), *map(table_row, results), strict=True):
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
    parser.add_argument(
        "--contenders", nargs="+", choices=[*CONTENDERS, "all"], default=DEFAULT_CONTENDERS
    )
    parser.add_argument("--skip-generate", action="store_true", help="fail where data is missing")
    parser.add_argument("--data", type=Path, help="folder to run on, instead of synthetic rows")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--repeat", type=int, default=1, help="rounds; the median is reported")
    parser.add_argument(
        "--report", type=Path, default=REPORT, help="Markdown; the figures go beside"
    )
    arguments = parser.parse_args()
    console = Console()
    BENCH.mkdir(exist_ok=True)
    if arguments.data:
        data = arguments.data.resolve()
        name = f"{data.name}-{zlib.crc32(bytes(data)):08x}"
        described = f"rows of {shape_of(data)[1]} in `{arguments.data}`"
    else:
        size = (int(arguments.rows), arguments.dim)
        data = prepare_data(*size, arguments.seed, arguments.skip_generate, console)
        name = data.name
        described = f"synthetic rows of {arguments.dim} (`synthetic.py`, seed {arguments.seed})"
    rows, dim = shape_of(data)
    work = BENCH / f"work-{name}"
    work.mkdir(exist_ok=True)
    job = Job(str(data), str(work), rows, arguments.threshold, arguments.threads, arguments.seed)
    kept = work if arguments.data else data  # nothing is written into a folder that is not ours
    truth = exact_truth(data, job) or sampled_truth(kept, data, job, console)
    reasons = choose_contenders(arguments.contenders, rows, console)
    example = Job(str(EXAMPLE), str(BENCH / "warm-up"), 0, THRESHOLD, job.threads, job.seed)
    run_measured(CONTENDERS["dask-dedup"].command("clipart", example), job.threads)
    notes = []
    if truth.labels is not None:
        notes.append(EXACT_NOTE)
    if arguments.repeat > 1:
        notes.append(f"{arguments.repeat} rounds of all contenders in turn: medians are shown.")
    outcome = {
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "examples/benchmarks/bench.py", *sys.argv[1:]]),
        "described": described,
        "dim": dim,
        **{key: value for key, value in asdict(job).items() if key not in ("data", "work")},
        "queries": QUERIES,
        "machine": describe_machine(),
        "notes": notes,
    }
    default = arguments.report == REPORT
    figures = BENCH / "results.json" if default else arguments.report.with_suffix(".json")
    # Written after each contender: a comparison of hours that is interrupted keeps what it has.
    for results in run_contenders(reasons, job, truth, arguments.repeat, console):
        outcome["not_run"] = {name: reason for name, reason in reasons.items() if reason}
        outcome["results"] = results
        figures.write_text(json.dumps(outcome, indent=2) + "\n")
        write_report(arguments.report, outcome)
    console.rule()
    print_table(outcome["results"], console)
    console.print(f"written: {_shown(arguments.report)}, {_shown(figures)}", highlight=False)


def _shown(path: Path) -> Path:
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()
