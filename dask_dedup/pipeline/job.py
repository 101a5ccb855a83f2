"""What every stage of a run works with: data, folder, settings, workers, progress, times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.finder_files import FinderFiles
from dask_dedup.graph.forest_range import ForestRange
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.stages import DeclaredStage, values_of
from dask_dedup.report.summary import StageTime
from dask_dedup.results.keep_rules import KeepRules
from dask_dedup.runtime.executor import Execute, Progress
from dask_dedup.runtime.shares import worker_count
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.run_folder import RunFolder
from dask_dedup.storage.stage import Stage

__all__ = ["Found", "Job", "conserve"]


@dataclass(frozen=True)
class Job:
    """One run over one folder.

    Attributes
    ----------
    data : Dataset
    folder : RunFolder
    settings : Settings
    execute : callable
        How tasks are computed.
    progress : Progress
    memory_bytes : int
        What each worker may use.
    check : callable
        Called after each stage; raises where the input has changed.
    times : list of StageTime
        Of the stages that have ended.
    skipped : list of int
        Rows of the present stage that an earlier start did.
    details : callable, optional
        Describes workers that are not this machine's, for the summary.
    rules : KeepRules
        What ``[keep]`` says, checked.
    note : callable
        Takes lines for the log of the run.
    began : float
        When the run did, by `time.perf_counter`: with its plan and its workers.
    """

    data: Dataset
    folder: RunFolder
    settings: Settings
    execute: Execute
    progress: Progress
    memory_bytes: int
    check: Callable[[], None] = lambda: None
    times: list[StageTime] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    details: Callable[[], dict[str, Any]] | None = None
    rules: KeepRules = field(default_factory=KeepRules)
    note: Callable[[str], None] = lambda _: None
    began: float = field(default_factory=time.perf_counter)

    def describe_workers(self) -> dict[str, Any]:
        """Return how many workers there are, and what each may use."""
        own = {
            "workers": worker_count(self.settings.compute),
            "worker_memory_bytes": self.memory_bytes,
        }
        return own if self.details is None else {**own, **self.details()}

    @contextmanager
    def timed(self, declared: DeclaredStage) -> Iterator[None]:
        """Measure the time of one stage over all rows, and show it in the progress display."""
        self.progress.start(declared.name, self.data.rows)
        self.skipped.clear()
        began = time.perf_counter()
        self.note(f"{declared.name}: begun")
        yield
        self.check()
        seconds = time.perf_counter() - began
        rows = max(self.data.rows - sum(self.skipped), 0)
        self.times.append(StageTime(declared.name, seconds, rows))
        before = f"; {self.data.rows - rows:,} rows were done before" * (rows < self.data.rows)
        self.note(f"{declared.name}: done in {seconds:.1f} s{before}")
        self.progress.finish()

    def stage(self, declared: DeclaredStage, known: Mapping[str, Any] | None = None) -> Stage:
        """Return a stage that depends on the settings that are declared for it.

        ``known``: further things that it depends on, or what stands for some of the settings.
        """
        return self.folder.stage(
            declared.folder, {**values_of(declared, self.settings), **(known or {})}
        )

    def run_stage(
        self,
        stage: Stage,
        function: Any,
        tasks: dict[str, tuple],
        rows_of: Callable[[dict[str, Any]], int] | None = None,
    ) -> list[dict[str, Any]]:
        """Run the tasks of a stage; ``rows_of`` a record are the progress, by default ``rows``."""
        count = rows_of or _recorded_rows
        return stage.run(
            function,
            tasks,
            self.execute,
            lambda record: self.progress.advance(count(record)),
            lambda record: self.skip(count(record)),
        )

    def skip(self, rows: int) -> None:
        """Note that an earlier start did so many rows of this stage."""
        self.skipped.append(rows)
        self.progress.skip(rows)


class Found(NamedTuple):
    """What a finder returns.

    Attributes
    ----------
    files : FinderFiles
        Lists the invalid rows, and the audit's true pairs.
    paths : list of AnyPath
        Files of EDGES: what the tasks have found, contracted to forests, and links to equal rows.
    edges : int
        In all of them.
    keys : dict
        The settings that all this depends on.
    counts : dict
        For the summary.
    audit_seconds : float
    lowest : float
        Similarity from which on an edge makes duplicates.
    answers : ForestRange or None
        The thresholds that the edges answer; None where similarities are quantized distances, and
        not cosines at full dimension.
    """

    files: FinderFiles
    paths: list[AnyPath]
    edges: int
    keys: dict[str, Any]
    counts: dict[str, Any]
    audit_seconds: float
    lowest: float
    answers: ForestRange | None


def _recorded_rows(record: dict[str, Any]) -> int:
    return int(record.get("rows", 0))


def conserve(stage: str, rows: int, expected: int) -> None:
    """Stop where a stage has lost or gained rows: an error of dask_dedup, not of the input."""
    if rows != expected:
        raise AssertionError(f"{stage}: {rows} rows came out of {expected}")
