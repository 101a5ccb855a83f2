"""The whole chain, stage by stage: what `dask-dedup run` does.

1. fit       sample → PCA, audit queries, coarse and fine cells
2. layout    each part: read, project, assign, audit, sort by cell, write once
3. join      each group of cells: candidates, verification, contraction to a forest
4. forest    the task forests merge in a tree
5. clusters  labels from the forest, joined to each part's metadata
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from dask.delayed import delayed

from dask_dedup.compress.fit import fit_pca
from dask_dedup.config import Settings
from dask_dedup.evaluate.audit import sample_queries
from dask_dedup.graph.components import merge_tree
from dask_dedup.graph.forest import label_forest
from dask_dedup.index.build import train_cells
from dask_dedup.index.layout import CellLayout
from dask_dedup.index.leaders import SAME_SIMILARITY
from dask_dedup.io.dataset import Dataset, read_dataset
from dask_dedup.io.part_list import write_parts
from dask_dedup.io.run_folder import RunFolder
from dask_dedup.io.store import Stage, read_json, write_aside, write_json
from dask_dedup.memory import TreeMemory
from dask_dedup.report.histogram import (
    histogram_frame,
    plot_histogram,
    prepare_plots,
    write_histogram_csv,
)
from dask_dedup.report.summary import StageTime, count_clusters, versions
from dask_dedup.search.join import CellGroup, plan_groups
from dask_dedup.stages import (
    contract_linked,
    finish_part,
    join_and_write,
    layout_and_audit,
    read_forest,
    write_forest,
)
from dask_dedup.tasks import Execute, NoProgress, Progress, compute_tasks

__all__ = ["run", "run_stages"]

logger = logging.getLogger(__name__)


def run(
    dataset: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    keep_stages: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the duplicates of a data set and write everything about them; computes.

    Parameters
    ----------
    dataset : path
        A folder as `read_dataset` takes it.
    out : path
        Where the results go: a new or empty folder, or one of an earlier run.
    settings : Settings, optional
    overwrite : bool
        Begin anew even if the folder holds a finished or interrupted run.
    keep_stages : bool
        Keep the working files under ``out/stages``.
    execute : callable, optional
        How tasks are computed; by default on the current Dask scheduler.
    progress : Progress, optional

    Returns
    -------
    dict
        The content of ``out/summary.json``.

    Raises
    ------
    InputError, OutputError
    """
    settings = settings or Settings()
    data = read_dataset(dataset, **settings.read.model_dump())
    with RunFolder(Path(out), settings.for_result(), data.fingerprint, overwrite) as folder:
        if folder.is_finished():
            return folder.read_summary()
        folder.begin()
        return run_stages(data, folder, settings, execute, progress or NoProgress(), keep_stages)


def run_stages(
    data: Dataset,
    folder: RunFolder,
    settings: Settings,
    execute: Execute,
    progress: Progress,
    keep_stages: bool,
) -> dict[str, Any]:
    """Do what `run` does, in a folder that is claimed with `RunFolder.begin`."""
    times: list[StageTime] = []
    with TreeMemory() as memory:
        began = time.perf_counter()
        chain = _Chain(data, folder, settings, execute, progress, times)
        layout = chain.fit()
        chain.write_layout(layout)
        chain.join(layout)
        # A second of imports and fonts, while the forests leave one core idle.
        Thread(target=prepare_plots, daemon=True).start()
        forest = chain.merge_forest(layout)
        found = chain.write_clusters(layout, forest)
        histogram = histogram_frame(found["sizes"])
        counts = count_clusters(histogram, data.rows, found["invalid_rows"])
        _check_conserved(counts, found, forest, settings.clusters.threshold)
        for made in (chain.clusters_folder, chain.invalid_folder, chain.forest_folder):
            folder.publish(made)
        write_histogram_csv(histogram, folder.path / "histogram.csv")
        plot_histogram(histogram, settings.clusters.threshold, folder.path / "histogram.png")
        with write_aside(folder.path / "settings.toml") as temporary:
            temporary.write_text(settings.to_toml(), encoding="utf-8")
    summary = {
        "dataset": data.path,
        **counts,
        "threshold": settings.clusters.threshold,
        "search_threshold": settings.search_threshold,
        "finder": "join",
        "stages": times,
        "wall_seconds": round(time.perf_counter() - began, 3),
        "peak_memory_bytes": memory.peak_bytes,
        "audit": found["audit"],
        "found": {**chain.layout_counts, **chain.join_counts, "cells": layout.cells},
        "versions": versions(),
    }
    folder.finish(summary, keep_stages)
    return summary


class _Chain:
    """The stages of one run over one folder."""

    def __init__(
        self,
        data: Dataset,
        folder: RunFolder,
        settings: Settings,
        execute: Execute,
        progress: Progress,
        times: list[StageTime],
    ) -> None:
        self.data = data
        self.folder = folder
        self.settings = settings
        self.execute = execute
        self.progress = progress
        self.times = times
        self.layout_counts: dict[str, int] = {}
        self.join_counts: dict[str, int] = {}
        layout_keys: dict[str, Any] = {
            "seed": settings.seed,
            "compress": settings.compress.model_dump(),
            "cells": settings.cells.model_dump(),
            "audit": settings.audit.model_dump(),
            "search_threshold": settings.search_threshold,
        }
        cluster_keys = {
            **layout_keys,
            "threshold": settings.clusters.threshold,
            "read": settings.read.model_dump(),
        }
        self.layout_stage = folder.stage("layout", layout_keys)
        self.join_stage = folder.stage("join", layout_keys)
        self.forest_stage = folder.stage("forests", layout_keys)
        self.cluster_stage = folder.stage("labels", cluster_keys)
        self.forest_folder = self.forest_stage.folder / "forest"
        self.clusters_folder = self.cluster_stage.folder / "clusters"
        self.invalid_folder = self.cluster_stage.folder / "invalid"

    def fit(self) -> CellLayout:
        """Fit the PCA, train the cells, draw the audit's queries."""
        with _Timed(self, "fit", self.data.rows):
            self.layout_stage.prepare()
            where = self.layout_stage.folder
            trained = read_json(where / "trained.json")
            if trained is None:
                settings = self.settings
                pca = fit_pca(
                    self.data,
                    settings.compress.dim,
                    sample_rows=settings.compress.sample_rows,
                    seed=settings.seed,
                    execute=self.execute,
                )
                layout = train_cells(
                    self.data,
                    pca,
                    where,
                    **settings.cells.model_dump(),
                    dense_groups=settings.search_threshold < SAME_SIMILARITY,
                    seed=settings.seed,
                    execute=self.execute,
                )
                if settings.audit.queries:
                    queries = sample_queries(layout.parts, settings.audit.queries, settings.seed)
                    np.savez(where / "queries.npz", row_ids=queries.row_ids, rows=queries.rows)
                logger.debug(
                    "PCA: %d of %d axes keep %.1f %% of the sample's variance",
                    pca.kept,
                    self.data.dim,
                    100 * pca.variance_share,
                )
                trained = {"kept": layout.kept, "cells": layout.cells}
                write_json(where / "trained.json", trained)
            logger.debug("cells: %d for %d rows", trained["cells"], self.data.rows)
            self.progress.advance(self.data.rows)
            layout = CellLayout(str(where), trained["kept"], trained["cells"])
            write_parts(self.data.filled_parts, Path(layout.parts_path))
            return layout

    def write_layout(self, layout: CellLayout) -> None:
        """Write the cell layout of every part, and the audit's true pairs."""
        settings = self.settings
        audited = settings.audit.queries > 0
        tasks = {
            f"part-{part.index:05d}": (
                layout,
                part,
                settings.compute.threads,
                settings.search_threshold if audited else None,
                settings.seed,
            )
            for part in layout.parts
        }
        records = self._run("layout", self.layout_stage, layout_and_audit, tasks, self.data.rows)
        self.layout_counts = {
            key: sum(record[key] for record in records)
            for key in ("invalid", "identical", "distinct", "visits")
        }
        self.audit_seconds = sum(record["audit_seconds"] for record in records)
        done = sum(record["rows"] for record in records)
        _conserve("layout", done, self.data.rows)
        logger.debug(
            "layout: %(distinct)d distinct rows make %(visits)d visits; %(identical)d repeat an "
            "earlier row of their part, %(invalid)d are invalid",
            self.layout_counts,
        )

    def join(self, layout: CellLayout) -> None:
        """Join inside the cells: one forest per task."""
        groups = plan_groups(layout)
        tasks = {
            f"group-{group.number:05d}": (
                layout,
                group,
                self.settings.search_threshold,
                self.settings.compute.threads,
                self._group_path(group),
            )
            for group in groups
        }
        visits = self.layout_counts["visits"]
        records = self._run("join", self.join_stage, join_and_write, tasks, self.data.rows)
        self.join_counts = {
            key: sum(record[key] for record in records) for key in ("candidates", "pairs")
        }
        logger.debug(
            "join: %d tasks; the filter let %d candidates through, %d were pairs",
            len(tasks),
            self.join_counts["candidates"],
            self.join_counts["pairs"],
        )
        _conserve("join", sum(record["visits"] for record in records), visits)
        self._groups = groups

    def merge_forest(self, layout: CellLayout) -> Any:
        """Merge the task forests; return a delayed reader of the result."""
        path = self.forest_folder / "part-00000.parquet"
        pieces = [delayed(read_forest)(self._group_path(group)) for group in self._groups]
        pieces += [delayed(contract_linked)(layout, part) for part in layout.parts]
        tasks = {"forest": (merge_tree(pieces), path)}
        self._run("forest", self.forest_stage, write_forest, tasks, self.data.rows)
        published = self.folder.path / "forest" / path.name
        return delayed(read_forest)(path if path.exists() else published)

    def write_clusters(self, layout: CellLayout, forest: Any) -> dict[str, Any]:
        """Label the components, write the clusters of every part, judge the audit."""
        labels = delayed(label_forest)(forest, self.settings.clusters.threshold)
        tasks = {
            f"part-{part.index:05d}": (
                layout,
                part,
                self.data.columns,
                labels,
                self.clusters_folder / f"part-{part.index:05d}.parquet",
                self.invalid_folder / f"part-{part.index:05d}.parquet",
            )
            for part in self.data.parts
        }
        threshold = self.settings.clusters.threshold
        audit_task = (layout, labels, threshold, self.settings.seed, self.settings.audit.queries)
        records = self._run(
            "clusters",
            self.cluster_stage,
            finish_part,
            {**tasks, "audit": audit_task},
            self.data.rows,
        )
        audit = records.pop()
        sizes: Counter[int] = Counter()
        for record in records:
            sizes.update({int(size): count for size, count in record["sizes"].items()})
        if self.settings.audit.queries:
            audit["seconds"] = round(audit["seconds"] + self.audit_seconds, 3)
        return {
            "rows": sum(record["rows"] for record in records),
            "invalid_rows": sum(record["invalid_rows"] for record in records),
            "sizes": sizes,
            "audit": audit if self.settings.audit.queries else None,
        }

    def _group_path(self, group: CellGroup) -> Path:
        return self.join_stage.folder / f"group-{group.number:05d}.parquet"

    def _run(
        self, name: str, stage: Stage, function: Any, tasks: dict[str, tuple], rows: int
    ) -> list[dict[str, Any]]:
        with _Timed(self, name, rows):
            return stage.run(function, tasks, self.execute, self._advance)

    def _advance(self, record: dict[str, Any]) -> None:
        if (
            "candidates" in record
        ):  # a task of the join: its share of the visits is its share of rows
            self.progress.advance(
                round(record["visits"] * self.data.rows / self.layout_counts["visits"])
            )
        else:
            self.progress.advance(int(record.get("rows", 0)))


class _Timed:
    """One stage on the clock and in the progress display."""

    def __init__(self, chain: _Chain, name: str, rows: int) -> None:
        self.chain, self.name, self.rows = chain, name, rows

    def __enter__(self) -> None:
        self.chain.progress.start(self.name, self.rows)
        self.began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        seconds = time.perf_counter() - self.began
        self.chain.times.append(StageTime(self.name, seconds, self.rows))
        self.chain.progress.finish()


def _conserve(stage: str, rows: int, expected: int) -> None:
    """Stop where a stage has lost or gained rows: a fault of ours, not of the input."""
    if rows != expected:
        raise AssertionError(f"{stage}: {rows} rows came out of {expected}")


def _check_conserved(
    counts: dict[str, Any], found: dict[str, Any], forest: Any, threshold: float
) -> None:
    _conserve("clusters", found["rows"], counts["rows"])
    edges = forest.compute(scheduler="synchronous")
    linking = int((edges["similarity"] >= np.float32(threshold)).sum())
    _conserve("duplicates against forest edges", counts["duplicates"], linking)
