"""What skewed data cost: the same number of rows with and without it.

Four data sets of synthetic rows, run one after the other with `dask-dedup run`, default settings:

- plain: 30 % duplicates in groups of power-law sizes, as `synthetic.py` makes them;
- near: 30 % of the rows are near-identical copies of one vector, no two alike (cosine 0.9995);
- identical: 5 % of the rows are one vector, bit for bit;
- one-cell: half of the rows are drawn towards one vector, until two of them have a cosine of some
  0.85: below the threshold, but nearer to each other than the cells are wide.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scoring import run_measured
from synthetic import generate

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("plain", "near", "identical", "one-cell")


SHARES = {"near": 0.3, "identical": 0.05, "one-cell": 0.5}


def plant(folder: Path, kind: str, seed: int, share: float | None = None) -> None:
    """Overwrite a share of the rows of a generated data set, evenly over its parts."""
    share = SHARES[kind] if share is None else share
    centre: np.ndarray | None = None
    for number, path in enumerate(sorted((folder / "img_emb").glob("*.npy"))):
        rows = np.load(path)
        rng = np.random.default_rng([seed, number])
        if centre is None:
            centre = rows[0].astype(np.float64)
            centre /= np.linalg.norm(centre)
            mean = rows.mean(axis=0, dtype=np.float64)
        chosen = np.flatnonzero(rng.random(len(rows)) < share)
        for some in np.array_split(chosen, 20):
            if kind == "identical":
                rows[some] = centre
            elif kind == "near":  # noise shares nothing with other noise: a cosine of 1 / 1.0005
                noise = rng.normal(size=(len(some), rows.shape[1])) / np.sqrt(rows.shape[1])
                rows[some] = centre + np.sqrt(0.0005) * noise
            else:
                rows[some] = centre + 0.59 * (rows[some] - mean)
        np.save(path, rows)


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / "skew")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("data", "seconds", "of plain", "peak memory", "duplicates", "largest", "stages"):
        table.add_column(name)
    plain = 0.0
    for kind in arguments.kinds:
        data = arguments.work / f"{kind}-{int(arguments.rows)}x{arguments.dim}"
        if not data.exists():
            aside = data.with_suffix(".partial")
            shutil.rmtree(aside, ignore_errors=True)
            generate(aside, int(arguments.rows), arguments.dim, seed=arguments.seed)
            if kind != "plain":
                plant(aside, kind, arguments.seed)
            aside.rename(data)
        out = arguments.work / f"out-{kind}"
        command = [str(Path(sys.executable).with_name("dask-dedup")), "run", str(data), str(out)]
        try:
            seconds, peak_bytes = run_measured([*command, "--overwrite", "-q"], threads=2)
        except subprocess.CalledProcessError as error:
            console.print(f"{kind}: {error}")
            continue
        plain = plain or seconds
        summary = json.loads((out / "summary.json").read_text())
        table.add_row(
            kind,
            f"{seconds:.1f}",
            f"{seconds / plain:.2f}",
            f"{peak_bytes / 1e9:.2f} GB",
            f"{summary['duplicates']:,}",
            f"{summary['largest_cluster']:,}",
            ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in summary["stages"]),
        )
    console.print(table)


if __name__ == "__main__":
    main()
