"""The contenders of the benchmark: each a command that is run and measured from outside.

To add one, write a function `Job -> results.Result` and enter it in `CONTENDERS` with `in_process`,
with the largest size that it is good for, and its environment (`environments.py`) if it needs one.
A tool with a command line of its own is a `Contender` of two functions: the command, and what to
read from the files it leaves.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from environments import python_of

CHECKED_EDGES = (
    20_000  # sampled of each contender's edges, whose cosines are computed again in float64
)
SEMDEDUP_ROWS_PER_CELL = 8800  # 440 million rows in 50,000 cells
TRAINING_ROWS_PER_CELL = 40  # for faiss: with thousands of cells more take minutes


@dataclass(frozen=True)
class Job:
    """What every contender gets.

    Attributes
    ----------
    data : str
        Folder of the data set.
    work : str
        Folder where the contenders write, each into one of its own name.
    rows : int
    threshold : float
        Least cosine of a pair.
    threads : int
        Cores to use.
    seed : int
    """

    data: str
    work: str
    rows: int
    threshold: float
    threads: int
    seed: int

    def folder(self, name: str) -> Path:
        """Return the folder of a contender."""
        return Path(self.work, name)


@dataclass(frozen=True)
class Outcome:
    """What a contender left.

    Attributes
    ----------
    title : str
        Name with settings, for the table.
    seconds : dict of str to float
        Wall time of each stage, by its own clock.
    labels : numpy.ndarray
        int64, (rows,): the smallest row_id of each row's component.
    edges : pandas.DataFrame
        `src`, `dst` int64: at most `CHECKED_EDGES` of those that made the components.
    note : str
    details : dict
        Further figures for results.json.
    """

    title: str
    seconds: dict[str, float]
    labels: np.ndarray
    edges: pd.DataFrame
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """How a contender is started, and how its files are read.

    Attributes
    ----------
    command : callable
        Name and job to the command line.
    read : callable
        Name and job to what the command left.
    largest : float
        Rows; beyond it the contender is passed over.
    environment : str or None
        Name in `environments.PACKAGES`; None where our own Python runs it.
    """

    command: Callable[[str, Job], list[str]]
    read: Callable[[str, Job], Outcome]
    largest: float = math.inf
    environment: str | None = None


def _dask_dedup_command(name: str, job: Job) -> list[str]:
    """Return what a user would type; every setting that matters has its default."""
    options = ["--threshold", str(job.threshold), "--workers", str(job.threads)]
    command = [str(Path(sys.executable).with_name("dask-dedup")), "run", job.data]
    return [*command, str(job.folder(name)), *options, "--seed", str(job.seed), "--overwrite"]


def _read_dask_dedup(name: str, job: Job) -> Outcome:
    folder = job.folder(name)
    summary = json.loads((folder / "summary.json").read_text())
    summary["dataset"] = Path(summary["dataset"]).name  # results are for others, paths are not
    labels = np.arange(job.rows)
    for path in sorted((folder / "clusters").glob("*.parquet")):
        table = pq.read_table(path, columns=["row_id", "cluster_id"])
        labels[table["row_id"].to_numpy()] = table["cluster_id"].to_numpy()
    forest = pd.read_parquet(folder / "forest")
    forest = forest[forest["similarity"] >= np.float32(job.threshold)]
    return Outcome(
        f"dask-dedup, {job.threads} workers",
        {stage["name"]: stage["seconds"] for stage in summary["stages"]},
        labels,
        _some(forest, job.seed),
        "writes every row with its cluster; its own audit is included",
        {"summary": summary},
    )


def _cells(job: Job) -> int:
    """Return how many cells dask-dedup has used on this data set."""
    path = job.folder("dask-dedup") / "summary.json"
    if not path.exists():
        raise SystemExit(f"{path} is missing: faiss gets as many cells. Run dask-dedup as well.")
    return json.loads(path.read_text())["found"]["cells"]


def faiss_ivf_flat(job: Job) -> Any:
    """Range search in an inverted file of full vectors, then scipy's components."""
    import rivals

    return rivals.faiss_ivf_flat(
        job.data,
        job.threshold,
        job.threads,
        _cells(job),
        probes=2,
        seed=job.seed,
        training_rows_per_cell=TRAINING_ROWS_PER_CELL,
    )


def faiss_ivf_flat_root(job: Job) -> Any:
    """The same with sqrt(2 rows) cells, 1,414 for a million: trained sooner, searched longer."""
    import rivals

    cells = round((2 * job.rows) ** 0.5)
    return rivals.faiss_ivf_flat(*_settings(job), cells, probes=2, seed=job.seed)


def faiss_ivf_sq8(job: Job) -> Any:
    """Two probes, as many cells as dask-dedup: 8 bits lose nothing beside 32."""
    import more_rivals

    return more_rivals.faiss_ivf_sq8(*_settings(job), _cells(job), probes=2, seed=job.seed)


def _few_cells(job: Job) -> int:
    """Return 2 sqrt(rows) cells: with codes so cheap to scan, training more takes longer."""
    return round(2 * job.rows**0.5)


def faiss_pca_fast_scan(job: Job) -> Any:
    """Cells of 64 axes are cheap to search: eight probes, for the recall."""
    import more_rivals

    return more_rivals.faiss_pca_ivf(*_settings(job), _few_cells(job), probes=8, seed=job.seed)


def faiss_pca_fast_scan_4(job: Job) -> Any:
    """The same with four probes."""
    import more_rivals

    return more_rivals.faiss_pca_ivf(*_settings(job), _few_cells(job), probes=4, seed=job.seed)


def faiss_pca_flat(job: Job) -> Any:
    """The same without codes: 256 bytes per row instead of 16, and no error but the PCA's."""
    import more_rivals

    settings = {"probes": 4, "seed": job.seed, "codec": "Flat"}
    return more_rivals.faiss_pca_ivf(*_settings(job), _few_cells(job), **settings)


def faiss_pca_streamed(job: Job) -> Any:
    """`faiss_pca_fast_scan` for more rows than memory holds as float32."""
    import streamed_rival

    settings = {"probes": 8, "seed": job.seed}
    return streamed_rival.faiss_pca_ivf_streamed(*_settings(job), _few_cells(job), **settings)


def faiss_pca_streamed_4(job: Job) -> Any:
    """The same with four probes."""
    import streamed_rival

    settings = {"probes": 4, "seed": job.seed}
    return streamed_rival.faiss_pca_ivf_streamed(*_settings(job), _few_cells(job), **settings)


def faiss_hnsw(job: Job) -> Any:
    """M 16, efSearch 64, 32 neighbours."""
    import more_rivals

    return more_rivals.faiss_hnsw(*_settings(job))


def faiss_big_batch(job: Job) -> Any:
    """The cells and probes of `faiss_ivf_flat`, 32 neighbours."""
    import more_rivals

    return more_rivals.faiss_big_batch(*_settings(job), _cells(job), probes=2, seed=job.seed)


def semdedup(job: Job) -> Any:
    """As many rows in a cell as in SemDeDup's paper, and at least two cells."""
    import more_rivals

    cells = max(2, job.rows // SEMDEDUP_ROWS_PER_CELL)
    return more_rivals.semdedup(*_settings(job), cells, seed=job.seed)


def adaptive_adc_4(job: Job) -> Any:
    """The chain of "On the De-duplication of LAION-2B", 4 bytes per row."""
    import more_rivals

    return more_rivals.adaptive_adc(*_settings(job), _cells(job), codes=4, seed=job.seed)


def adaptive_adc_16(job: Job) -> Any:
    """The same, 16 bytes per row."""
    import more_rivals

    return more_rivals.adaptive_adc(*_settings(job), _cells(job), codes=16, seed=job.seed)


def faiss_flat(job: Job) -> Any:
    """Brute force."""
    import rivals

    return rivals.faiss_flat(*_settings(job))


def usearch_graph(job: Job) -> Any:
    """Its default connectivity and expansion, 32 neighbours."""
    import foreign_rivals

    return foreign_rivals.usearch_graph(*_settings(job))


def pynndescent_graph(job: Job) -> Any:
    """Its default settings, 32 neighbours."""
    import foreign_rivals

    return foreign_rivals.pynndescent_graph(*_settings(job), seed=job.seed)


def semhash_embeddings(job: Job) -> Any:
    """Its default settings; it has none for recall."""
    import foreign_rivals

    return foreign_rivals.semhash_embeddings(*_settings(job))


def autofaiss_index(job: Job) -> Any:
    """The index that autofaiss chooses for 1 ms a query, 32 neighbours."""
    import foreign_rivals

    return foreign_rivals.autofaiss_index(*_settings(job))


def _settings(job: Job) -> tuple[str, float, int]:
    return job.data, job.threshold, job.threads


_IN_PROCESS: dict[str, Callable[[Job], Any]] = {}


def in_process(
    name: str,
    function: Callable[[Job], Any],
    largest: float = math.inf,
    environment: str | None = None,
) -> Contender:
    """Return the contender that runs `function` in a Python process of its own."""
    _IN_PROCESS[name] = function
    return Contender(_own_command, _read_own, largest, environment)


def _own_command(name: str, job: Job) -> list[str]:
    environment = CONTENDERS[name].environment
    python = sys.executable if environment is None else str(python_of(environment))
    return [python, __file__, name, json.dumps(asdict(job))]


def _read_own(name: str, job: Job) -> Outcome:
    folder = job.folder(name)
    return Outcome(
        **json.loads((folder / "outcome.json").read_text()),
        labels=np.load(folder / "labels.npy"),
        edges=pd.read_parquet(folder / "edges.parquet"),
    )


def _some(edges: pd.DataFrame, seed: int) -> pd.DataFrame:
    edges = edges[["src", "dst"]]
    return edges.sample(min(CHECKED_EDGES, len(edges)), random_state=seed, ignore_index=True)


CONTENDERS: dict[str, Contender] = {
    "dask-dedup": Contender(_dask_dedup_command, _read_dask_dedup),
    "faiss-ivf-flat": in_process("faiss-ivf-flat", faiss_ivf_flat, 4e6),
    "faiss-ivf-flat-root": in_process("faiss-ivf-flat-root", faiss_ivf_flat_root, 4e6),
    "faiss-ivf-sq8": in_process("faiss-ivf-sq8", faiss_ivf_sq8, 1e6),
    "faiss-pca-fast-scan": in_process("faiss-pca-fast-scan", faiss_pca_fast_scan, 4e6),
    "faiss-pca-fast-scan-4": in_process("faiss-pca-fast-scan-4", faiss_pca_fast_scan_4, 4e6),
    "faiss-pca-flat": in_process("faiss-pca-flat", faiss_pca_flat, 4e6),
    "faiss-pca-streamed": in_process("faiss-pca-streamed", faiss_pca_streamed),
    "faiss-pca-streamed-4": in_process("faiss-pca-streamed-4", faiss_pca_streamed_4),
    "faiss-hnsw": in_process("faiss-hnsw", faiss_hnsw, 1e6),
    "faiss-big-batch": in_process("faiss-big-batch", faiss_big_batch, 1e6),
    "semdedup": in_process("semdedup", semdedup, 1e6),
    "adaptive-adc-4": in_process("adaptive-adc-4", adaptive_adc_4, 1e6),
    "adaptive-adc-16": in_process("adaptive-adc-16", adaptive_adc_16, 1e6),
    "usearch": in_process("usearch", usearch_graph, 1e6, "usearch"),
    "pynndescent": in_process("pynndescent", pynndescent_graph, 1e6, "pynndescent"),
    "semhash": in_process("semhash", semhash_embeddings, 1e6, "semhash"),
    "autofaiss": in_process("autofaiss", autofaiss_index, 1e6, "autofaiss"),
    "faiss-flat": in_process("faiss-flat", faiss_flat, 1e5),
}


def main() -> None:
    """Run one contender in this process; called by `bench`."""
    name, job = sys.argv[1], Job(**json.loads(sys.argv[2]))
    result = _IN_PROCESS[name](job)
    folder = job.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "labels.npy", result.labels)
    _some(result.pairs, job.seed).to_parquet(folder / "edges.parquet")
    details = {"title": result.name, "seconds": result.seconds, "note": result.note}
    details |= {"details": {"pairs": len(result.pairs)}}
    (folder / "outcome.json").write_text(json.dumps(details))


if __name__ == "__main__":
    main()
