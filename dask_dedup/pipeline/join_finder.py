"""The finder `join`: every pair of rows that meet in a cell.

1. fit       sample → PCA, audit queries, coarse and fine cells
2. layout    each span: read, project, assign, audit, sort by cell, write once
3. merge     where spans are many: files of entries to fewer ones, which the join reads
4. join      each group of cells: candidates, verification, contraction to a forest
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from dask.delayed import delayed

from dask_dedup.cells.build import begin_layout, cells_task
from dask_dedup.cells.entries import MOST_FILES, plan_merges
from dask_dedup.cells.join_groups import CellGroup, plan_groups
from dask_dedup.cells.layout_files import CellLayout, EntryFile
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.finders import Finder
from dask_dedup.pipeline.job import Found, Job, conserve
from dask_dedup.pipeline.stages import FIT, JOIN, LAYOUT, MERGES, values_of
from dask_dedup.runtime.executor import OnWorker, ignore_result
from dask_dedup.storage.objects import remove_tree
from dask_dedup.storage.stage import TRAINED, files_of_note, read_note, write_note
from dask_dedup.vectors.fit_pca import pca_task

__all__ = ["JoinFinder"]

_STAGES = "dask_dedup.pipeline.stage_tasks"

logger = logging.getLogger(__name__)


class JoinFinder(Finder):
    """The stages of the finder, in one job."""

    name = "join"

    def __init__(self, job: Job) -> None:
        self.job = job
        self.keys: dict[str, Any] = values_of(JOIN, job.settings)
        self.layout_stage = job.stage(LAYOUT)
        self.join_stage = job.stage(JOIN)
        self.layout_counts: dict[str, int] = {}
        self.join_counts: dict[str, int] = {}
        self.audit_seconds = 0.0

    def find(self) -> Found:
        """Find the edges."""
        layout = self._fit()
        layout.write_entry_files(self._merge(layout, self._write_layout(layout)))
        groups = self._join(layout)
        paths = [self._group_path(group) for group in groups]
        paths += [layout.path("linked", span) for span in layout.spans]
        edges = self.join_counts["edges"] + self.layout_counts["linked"]
        counts = {**self.layout_counts, **self.join_counts, "cells": layout.cells}
        threshold = self.job.settings.clusters.threshold
        return Found(
            layout,
            paths,
            edges,
            self.keys,
            counts,
            self.audit_seconds,
            threshold,
            layout.answers_from(self.job.settings.search_threshold),
        )

    def _fit(self) -> CellLayout:
        """Fit the PCA, train the cells, draw the audit's queries."""
        with self.job.timed(FIT):
            self.layout_stage.prepare()
            data, settings = self.job.data, self.job.settings
            folder = self.layout_stage.folder
            kept = min(settings.projection.dim, data.dim)
            dense_groups = self.keys["dense_groups"]
            layout = begin_layout(data, folder, kept, settings.cells.cells, dense_groups)
            trained = read_note(folder, TRAINED)
            advance = self.job.progress.advance if trained is None else self.job.skip
            if trained is None:
                before = files_of_note(folder, TRAINED)
                trained = {"cells": self._train(layout)}
                write_note(folder, TRAINED, trained, [*layout.model_paths, layout.queries_path])
                if before not in (None, files_of_note(folder, TRAINED)):
                    # What was made with other models does not fit these.
                    self.layout_stage.forget()
                    self.join_stage.forget()
                    for merge in MERGES:
                        remove_tree(self.job.folder.stages / merge.folder)
            logger.debug("cells: %d for %d rows", trained["cells"], data.rows)
            advance(data.rows)
            return replace(layout, cells=trained["cells"])

    def _train(self, layout: CellLayout) -> int:
        """Fit, train and draw, in one graph: while one task waits, another runs.

        Returns the number of cells.
        """
        data, settings = self.job.data, self.job.settings
        sample_rows, seed = settings.projection.sample_rows, settings.seed
        pca = pca_task(data, layout.kept, sample_rows=sample_rows, seed=seed)
        cells = cells_task(
            data,
            pca,
            layout,
            **settings.cells.model_dump(exclude={"cells"}),
            seed=seed,
        )
        # The share, not the model: of these tasks, none may need another.
        tasks = [pca.variance_share, cells]
        if settings.audit.queries:
            draw = delayed(OnWorker(_STAGES, "draw_queries"))
            tasks.append(draw(layout, settings.audit.queries, seed))
        variance_share, trained, *_ = self.job.execute(tasks, ignore_result)
        logger.debug(
            "PCA: %d of %d axes keep %.1f %% of the sample's variance",
            layout.kept,
            data.dim,
            100 * variance_share,
        )
        return int(trained)

    def _write_layout(self, layout: CellLayout) -> list[EntryFile]:
        """Write the cell layout of every span, and the audit's true pairs; return the files."""
        settings = self.job.settings
        audited = settings.audit.queries > 0
        tasks = {
            span.name: (
                layout,
                span,
                settings.compute.threads,
                settings.compute.device,
                settings.search_threshold if audited else None,
                settings.seed,
            )
            for span in layout.spans
        }
        with self.job.timed(LAYOUT):
            records = self.job.run_stage(
                self.layout_stage, OnWorker(_STAGES, "layout_and_audit"), tasks
            )
        self.layout_counts = {
            key: sum(record[key] for record in records)
            for key in ("invalid", "identical", "distinct", "entries", "linked")
        }
        self.audit_seconds = sum(record["audit_seconds"] for record in records)
        conserve(LAYOUT.name, sum(record["rows"] for record in records), self.job.data.rows)
        logger.debug(
            "layout: %(distinct)d distinct rows make %(entries)d entries; %(identical)d repeat an "
            "earlier row of their span, %(invalid)d are invalid",
            self.layout_counts,
        )
        return [
            layout.entry_file(span, record["entries"])
            for span, record in zip(layout.spans, records, strict=True)
        ]

    def _merge(self, layout: CellLayout, files: list[EntryFile]) -> list[EntryFile]:
        """Merge files of entries until there are few enough; a stage for each level of merges."""
        levels = iter(MERGES)
        while len(files) > MOST_FILES:
            declared = next(levels)
            stage = self.job.stage(declared)
            merged = plan_merges(files, stage.folder)
            tasks = {f"merge-{i:05d}": (layout, *task) for i, task in enumerate(merged.tasks)}
            with self.job.timed(declared):
                self.job.run_stage(stage, OnWorker(_STAGES, "merge_and_count"), tasks)
            files = merged.files
        return files

    def _join(self, layout: CellLayout) -> list[CellGroup]:
        """Join inside the cells: one forest per task; return the tasks."""
        groups = plan_groups(layout)
        tasks = {
            f"group-{group.number:05d}": (
                layout,
                group,
                self.job.settings.search_threshold,
                self.job.settings.compute.threads,
                self.job.settings.compute.device,
                self._group_path(group),
            )
            for group in groups
        }
        entries = self.layout_counts["entries"]
        with self.job.timed(JOIN):
            records = self.job.run_stage(
                self.join_stage, OnWorker(_STAGES, "join_and_write"), tasks, self._share_of_rows
            )
        self.join_counts = {
            key: sum(record[key] for record in records) for key in ("candidates", "pairs", "edges")
        }
        logger.debug(
            "join: %d tasks; the filter let %d candidates through, %d were pairs",
            len(tasks),
            self.join_counts["candidates"],
            self.join_counts["pairs"],
        )
        conserve(JOIN.name, sum(record["entries"] for record in records), entries)
        return groups

    def _group_path(self, group: CellGroup) -> AnyPath:
        return self.join_stage.folder / f"group-{group.number:05d}.parquet"

    def _share_of_rows(self, record: dict[str, Any]) -> int:
        """Count a task's share of the entries as its share of the rows."""
        share = record["entries"] / self.layout_counts["entries"]
        return round(share * self.job.data.rows)
