"""The truth: exhaustive search for a seeded sample of rows, or for all, cached on disk.

1. The queries are cut into groups of 4,096, the parts into groups of about a million rows; a task
compares one with the other and writes what it found. 2. One more task for each group of queries
merges its neighbours. A task holds its queries, one block of rows and their products: some 150 MB
at dimension 512, whatever the data set's size.

OUT gets ``neighbours/*.parquet`` (``query``, ``row_id`` int64, ``rank`` int32 from 0,
``similarity`` float32), ``pairs/*.parquet`` where a threshold was given, and ``summary.json``. With
all rows as queries, pairs are EDGES (``src < dst``); else ``query``, ``row_id``, ``similarity``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.part_rows import gather_by_row
from dask_dedup.data.parts import Part, read_rows
from dask_dedup.data.spans import cut_spans
from dask_dedup.errors import InputError, SettingsError
from dask_dedup.evaluate.evaluation_folder import is_finished, open_folder
from dask_dedup.evaluate.exact import BLOCK_ROWS, DEFAULT_LIMITS, ExactSearch, SearchLimits
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks, ignore_result
from dask_dedup.storage.files import read_json, write_frame, write_json
from dask_dedup.storage.stage import Stage
from dask_dedup.vectors.sample import sample_row_ids, split_rows

__all__ = ["TrueNeighbours", "TruthSettings", "find_truth", "read_neighbours"]

_PURPOSE = 7  # of the sample: see vectors.sample


@dataclass(frozen=True)
class TruthSettings:
    """What is searched for.

    Attributes
    ----------
    queries : int or None
        Rows of the seeded sample; None takes all rows.
    k : int
        Neighbours of each; 0 for none.
    threshold : float or None
        Cosine from which on all pairs are kept; None keeps none.
    modality : str
        ``image`` or ``text``.
    seed : int
    """

    queries: int | None = 1000
    k: int = 10
    threshold: float | None = None
    modality: str = "image"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.queries is not None and self.queries < 1:
            raise SettingsError(f"queries: expected at least 1, or all, got {self.queries}.")
        if self.k < 0 or self.k > BLOCK_ROWS:
            raise SettingsError(f"k: expected 0 to {BLOCK_ROWS}, got {self.k}.")
        if self.threshold is not None and not -1 < self.threshold <= 1:
            raise SettingsError(f"threshold: expected a cosine above -1, got {self.threshold}.")
        if not self.k and self.threshold is None:
            raise SettingsError("k is 0 and no threshold is given: there is nothing to search for.")
        if self.seed < 0:
            raise SettingsError(f"seed: expected 0 or more, got {self.seed}.")


class TrueNeighbours(NamedTuple):
    """True neighbours: ``queries`` (n,), ``row_ids`` int64 and ``similarity`` float32 (n, k)."""

    queries: np.ndarray
    row_ids: np.ndarray
    similarity: np.ndarray


def find_truth(
    dataset: Dataset,
    out: Path,
    settings: TruthSettings,
    *,
    threads: int = 1,
    overwrite: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
    limits: SearchLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Search exhaustively and write the truth to ``out``; computes.

    The same call again does nothing; one that was stopped continues. The result is the
    same for any parts, blocks and threads.

    Parameters
    ----------
    dataset : Dataset
    out : Path
    settings : TruthSettings
    threads : int
        Of the matrix product of each task.
    overwrite : bool
        Begin anew.
    execute, progress
        See `dask_dedup.runtime.executor`.
    limits : SearchLimits

    Returns
    -------
    dict
        The summary: "rows", "queries", "unusable_queries", "neighbours", "pairs" (None without a
        threshold), "seconds", "settings".

    Raises
    ------
    OutputError
        ``out`` holds something else, or the truth of other settings or another input.
    InputError
        The data set lacks the modality.
    CapacityError
        More pairs than a task can hold.
    """
    parts = dataset.view(settings.modality).filled_parts
    progress = progress or NoProgress()
    keys = {**asdict(settings), "input": dataset.fingerprint}
    with open_folder(out, "truth", keys, overwrite) as stage:
        summary = read_json(out / "summary.json")
        if is_finished(stage) and isinstance(summary, dict):
            return summary
        stage.prepare()
        began = time.perf_counter()
        groups = _query_groups(dataset.rows, settings, limits.group_queries)
        row_groups = [span.parts for span in cut_spans(parts, limits.group_rows)]
        scanned = Stage(out / "scan", stage.settings)
        progress.start("truth", dataset.rows * len(groups))
        for name in ("neighbours", "pairs"):
            (out / name).mkdir(exist_ok=True)
        records = scanned.run(
            _scan,
            {
                f"{g:06d}-{p:06d}": (
                    str(out),
                    f"{g:06d}-{p:06d}",
                    [part for part, _ in split_rows(ids, parts)],
                    ids,
                    row_groups[p],
                    settings,
                    threads,
                    limits,
                )
                for g, ids in enumerate(groups)
                for p in range(len(row_groups))
            },
            execute,
            lambda record: progress.advance(record["rows"]),
            lambda record: progress.skip(record["rows"]),
        )
        progress.finish()
        merged = stage.run(
            _merge,
            {
                f"{g:06d}": (str(out), f"{g:06d}", len(row_groups), settings.k)
                for g in range(len(groups))
            },
            execute,
            ignore_result,
        )
        per_group = records[:: len(row_groups)]
        summary = {
            "rows": dataset.rows,
            "dim": parts[0].embeddings.dim,
            "queries": sum(len(ids) for ids in groups),
            "unusable_queries": sum(record["unusable"] for record in per_group),
            "neighbours": sum(record["neighbours"] for record in merged),
            "pairs": (
                None if settings.threshold is None else sum(record["pairs"] for record in records)
            ),
            "seconds": time.perf_counter() - began,
            "settings": asdict(settings),
        }
        write_json(out / "summary.json", summary)
        shutil.rmtree(out / "scan", ignore_errors=True)
        for record in out.glob("*.done.json"):
            record.unlink()
        return summary


def read_neighbours(out: Path) -> TrueNeighbours:
    """Read the neighbours that `find_truth` wrote; queries with fewer than k are left out.

    Raises
    ------
    InputError
        The folder holds no finished truth.
    """
    summary = read_json(out / "summary.json")
    if not isinstance(summary, dict) or "settings" not in summary:
        raise InputError(
            f"{out}: holds no finished truth. Make one with `dask-dedup evaluate truth`."
        )
    k = summary["settings"]["k"]
    frame = pd.concat(
        [pq.read_table(path).to_pandas() for path in sorted((out / "neighbours").glob("*.parquet"))]
    )
    full = frame.groupby("query")["row_id"].transform("size").to_numpy() == k
    frame = frame[full].sort_values(["query", "rank"])
    return TrueNeighbours(
        frame["query"].to_numpy()[:: max(k, 1)],
        frame["row_id"].to_numpy().reshape(-1, k),
        frame["similarity"].to_numpy().reshape(-1, k),
    )


def _query_groups(rows: int, settings: TruthSettings, size: int) -> list[np.ndarray]:
    """Return the row ids of each group of queries: 8 bytes a query."""
    wanted = rows if settings.queries is None else settings.queries
    ids = sample_row_ids(rows, wanted, settings.seed, _PURPOSE)
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _scan(
    out: str,
    name: str,
    query_parts: Sequence[Part],
    query_ids: np.ndarray,
    group: Sequence[Part],
    settings: TruthSettings,
    threads: int,
    limits: SearchLimits,
) -> dict[str, int]:
    """Compare a group of queries with a group of parts; write neighbours and pairs."""
    torch.set_num_threads(threads)
    search = ExactSearch(
        gather_by_row(query_parts, query_ids),
        query_ids,
        settings.k,
        settings.threshold,
        once=settings.queries is None,
        limits=limits,
    )
    rows = 0
    for part in group:
        for start in range(0, part.rows, limits.block_rows):
            stop = min(start + limits.block_rows, part.rows)
            search.add(read_rows(part.embeddings, start, stop), part.row_start + start)
        rows += part.rows
    write_frame(Path(out) / "scan" / f"{name}.parquet", search.neighbours())
    pairs = search.pairs()
    if settings.threshold is not None:
        if settings.queries is None:
            pairs = pairs.rename(columns={"query": "src", "row_id": "dst"})
        write_frame(Path(out) / "pairs" / f"{name}.parquet", pairs)
    unusable = len(query_ids) - len(search.query_ids)
    return {"rows": rows, "pairs": len(pairs), "unusable": unusable}


def _merge(out: str, name: str, row_groups: int, k: int) -> dict[str, int]:
    """Write the neighbours of one group of queries, of all parts."""
    found = pd.concat(
        [
            pq.read_table(Path(out) / "scan" / f"{name}-{p:06d}.parquet").to_pandas()
            for p in range(row_groups)
        ],
        ignore_index=True,
    )
    found = found.sort_values(
        ["query", "similarity", "row_id"], ascending=[True, False, True], ignore_index=True
    )
    found.insert(2, "rank", found.groupby("query").cumcount().astype(np.int32))
    found = found[found["rank"] < k]
    if k:
        write_frame(Path(out) / "neighbours" / f"{name}.parquet", found)
    return {"neighbours": len(found)}
