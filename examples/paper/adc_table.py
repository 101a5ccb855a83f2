"""Compare `--finder adc` with `--finder join` and with exact truth, and write a table.

    python examples/paper/adc_table.py DATASET WORK > table.md

For each number M of bytes a code: verified at full dimension, and not (the paper's way). Truth is
found by brute force: all pairs of a sample of rows, or of all rows with `--queries 0`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from dask_dedup import read_dataset
from dask_dedup.data.part_rows import gather_by_row

THRESHOLD = 0.95
BLOCK_ROWS = 512  # queries compared with all rows at a time


def unit_rows(dataset: Path) -> np.ndarray:
    """Return all rows at unit length: float32, shape (rows, dim)."""
    data = read_dataset(dataset)
    rows = gather_by_row(data.parts, np.arange(data.rows)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def find_pairs(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return all pairs (query, other row) at the threshold or above: int64, shape (pairs, 2)."""
    found = []
    for some in np.array_split(queries, max(1, len(queries) // BLOCK_ROWS)):
        i, j = np.nonzero(rows[some] @ rows.T >= THRESHOLD)
        found.append(np.column_stack([some[i], j]))
    pairs = np.concatenate(found)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def measure(
    dataset: Path, out: Path, options: list[str], rows: np.ndarray, pairs: np.ndarray
) -> dict[str, str]:
    """Run once; return one line of the table."""
    command = [sys.executable, "-m", "dask_dedup", "run", str(dataset), str(out), "-q"]
    subprocess.run([*command, "--overwrite", *options], check=True)
    summary = json.loads((out / "summary.json").read_text())
    clusters = pd.read_parquet(out / "clusters", columns=["row_id", "cluster_id"])
    label = clusters.sort_values("row_id")["cluster_id"].to_numpy()
    forest = pd.read_parquet(out / "forest")
    edges = forest[["src", "dst"]].to_numpy()
    cosine = np.einsum("ij,ij->i", rows[edges[:, 0]], rows[edges[:, 1]], dtype=np.float64)
    followed = forest["similarity"].to_numpy() >= (THRESHOLD if summary["is_verified"] else -np.inf)
    found = summary["found"]
    tolerance = found.get("tolerance")
    return {
        "T": "" if tolerance is None else f"{tolerance:.3g}",
        "clusters": f"{summary['clusters']:,}",
        "true pairs united": f"{(label[pairs[:, 0]] == label[pairs[:, 1]]).mean():.4f}",
        "links that are true": f"{(cosine[followed] >= THRESHOLD - 1e-6).mean():.3f}",
        "candidates": f"{found['candidates']:,}",
        "saturated": f"{found.get('saturated', ''):,}" if "saturated" in found else "",
        "seconds": f"{summary['wall_seconds']:.1f}",
    }


def main() -> None:
    """Measure all, print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("work", type=Path, help="folder for the runs' results")
    parser.add_argument("--lists", type=int, default=256)
    parser.add_argument("--m", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--queries", type=int, default=4000, help="rows of the truth; 0: all")
    parser.add_argument("--models", nargs="*", default=[], help="folders of compressors, too")
    arguments = parser.parse_args()
    rows = unit_rows(arguments.dataset)
    queries = np.arange(len(rows))
    if arguments.queries:
        queries = np.random.default_rng(0).permutation(queries)[: arguments.queries]
    pairs = find_pairs(rows, queries)
    runs: dict[str, list[str]] = {"join": []}
    for model in ["", *arguments.models]:
        behind = ["--model", model] if model else []
        for m in arguments.m:
            name = f"{Path(model).name + ', ' if model else ''}IVF{arguments.lists},PQ{m}"
            adc = ["--finder", "adc", "--factory", f"IVF{arguments.lists},PQ{m}", *behind]
            runs[f"adc {name}, verified"] = adc
            runs[f"adc {name}, not verified"] = [*adc, "--no-verify"]
    lines = [
        {"finder": name} | measure(arguments.dataset, arguments.work / f"{i}", options, rows, pairs)
        for i, (name, options) in enumerate(runs.items())
    ]
    print(f"{len(rows):,} rows, {len(pairs):,} true pairs of {len(queries):,} rows\n")
    print("| " + " | ".join(lines[0]) + " |\n|" + "---|" * len(lines[0]))
    for line in lines:
        print("| " + " | ".join(line.values()) + " |")


if __name__ == "__main__":
    main()
