"""The stages of ``[keep]``: see `dask_dedup.pipeline.keep_tasks` for what their tasks do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dask_dedup.data.spans import cut_spans
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.job import Found, Job
from dask_dedup.pipeline.span_members import SpanSources
from dask_dedup.pipeline.stages import CARRY, DECIDE, PLACE, RANK, SETTLE, VALUES, DeclaredStage
from dask_dedup.results.decisions import DECISIONS
from dask_dedup.results.sizes import cluster_buckets
from dask_dedup.runtime.executor import OnWorker
from dask_dedup.storage.files import read_frame, write_frame
from dask_dedup.storage.stage import Stage

__all__ = ["Keeping"]

_TASKS = "dask_dedup.pipeline.keep_tasks"


class Keeping:
    """The stages of one job that its rules ask for."""

    def __init__(self, job: Job) -> None:
        self.job, self.rules = job, job.rules
        self.spans = [span for span in cut_spans(job.data.parts) if span.rows]
        self.decided: AnyPath | None = None
        self.counts: dict[str, Any] = {}  # for the summary
        self._known: dict[str, Any] = dict(self.rules.digests)
        self._found: Found | None = None
        self._buckets = 1

    @property
    def decisions_text(self) -> str | None:
        """The file of decisions, to be stored with the result."""
        return None if self.rules.decisions is None else self.rules.decisions.text

    def decide(self) -> None:
        """Find the rows that decisions are about: before the search, since a line may be wrong."""
        decisions = self.rules.decisions
        if decisions is None:
            return
        stage = self._stage(DECIDE)
        stage.prepare()
        if decisions.is_by_row:
            frame = decisions.of_rows()
        else:
            given = stage.folder / "given.parquet"
            write_frame(given, decisions.by_key())
            tasks = {
                span.name: (
                    span,
                    self.job.data.columns,
                    decisions.key,
                    given,
                    stage.folder / f"matched-{span.index:05d}.parquet",
                )
                for span in self.spans
            }
            with self.job.timed(DECIDE):
                records = self.job.run_stage(stage, OnWorker(_TASKS, "match_span"), tasks)
            paths = [stage.folder / record["file"] for record in records]
            frame = pd.concat([read_frame(path) for path in paths], ignore_index=True)
            missing = np.setdiff1d(np.arange(len(decisions.keys)), frame.pop("number"))
            if len(missing):
                raise decisions.unknown(int(missing[0]))
        self.decided = stage.folder / "decided.parquet"
        write_frame(self.decided, frame)
        names = {role: word for word, role in DECISIONS.items()}
        counted = frame["role"].value_counts()
        self.counts["decisions"] = {
            names[role]: int(counted.get(role, 0)) for role in sorted(names)
        }

    def rank(self, found: Found, labels: Stage, edges: int) -> list[AnyPath] | None:
        """Rank the rows in clusters; return the files, None where ranks are not asked for."""
        self._found, self._known = found, {**found.keys, **self.rules.digests}
        if not self.rules.are_ranked:
            return None
        self._buckets = cluster_buckets(edges)
        values, ranks = self._stage(VALUES), self._stage(RANK)
        rules = self.rules.without_decisions()
        tasks = {
            span.name: (
                span,
                self.job.data.columns,
                rules,
                labels.folder,
                self.decided,
                self._buckets,
                values.folder / f"values-{span.index:05d}.parquet",
            )
            for span in self.spans
        }
        records = self.job.run_stage(values, OnWorker(_TASKS, "value_span"), tasks)
        if self.rules.protect is not None:
            self.counts["protected"] = sum(record["protected"] for record in records)
        files = _files(values, records)
        bucket_tasks = {
            f"rank-{bucket:05d}": (
                found.files,
                files,
                bucket,
                rules,
                ranks.folder / f"rank-{bucket:05d}.parquet",
            )
            for bucket in range(self._buckets if files else 0)
        }
        records = self.job.run_stage(ranks, OnWorker(_TASKS, "rank_bucket"), bucket_tasks)
        return _files(ranks, records)

    def settle(self, sources: SpanSources) -> SpanSources:
        """Settle which rows go although they would stay, and whose values go where."""
        sources = replace(sources, decided=self.decided)
        if self.rules.are_settled:
            sources = replace(sources, settled=self._settle(sources))
        if self.rules.merge:
            sources = replace(sources, carried=self._carry(sources))
        return sources

    def _settle(self, sources: SpanSources) -> list[AnyPath]:
        assert self._found is not None
        placed, settled = self._stage(PLACE), self._stage(SETTLE)
        layout = self._found.files
        tasks = {
            span.name: (
                layout,
                span,
                sources,
                self._buckets,
                placed.folder / f"placed-{span.index:05d}.parquet",
            )
            for span in self.spans
        }
        records = self.job.run_stage(placed, OnWorker(_TASKS, "place_span"), tasks)
        files = _files(placed, records)
        bucket_tasks = {
            f"settle-{bucket:05d}": (
                layout,
                files,
                bucket,
                self.rules.most,
                settled.folder / f"settled-{bucket:05d}.parquet",
            )
            for bucket in range(self._buckets if files else 0)
        }
        records = self.job.run_stage(settled, OnWorker(_TASKS, "settle_bucket"), bucket_tasks)
        return _files(settled, records)

    def _carry(self, sources: SpanSources) -> list[AnyPath]:
        assert self._found is not None
        carried = self._stage(CARRY)
        tasks = {
            span.name: (
                self._found.files,
                span,
                self.job.data.columns,
                self.rules.without_decisions(),
                sources,
                carried.folder / f"carried-{span.index:05d}.parquet",
            )
            for span in self.spans
        }
        return _files(carried, self.job.run_stage(carried, OnWorker(_TASKS, "carry_span"), tasks))

    def _stage(self, declared: DeclaredStage) -> Stage:
        return self.job.stage(declared, self._known)


def _files(stage: Stage, records: list[dict[str, Any]]) -> list[AnyPath]:
    """Return the files that tasks have written."""
    return [stage.folder / record["file"] for record in records if record["file"] is not None]
