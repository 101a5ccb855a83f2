"""`run`: a data set's duplicates from start to end, for the command and for Python alike.

1. Settings; the process to fork workers from; the data set's headers.
2. The output folder: locked; finished before, or a forest that answers the threshold?
3. The plan: said, refused where memory or disk do not hold it, written for `status`.
4. Workers: those of the current Client, or new ones where the settings say.
5. The stages: see `dask_dedup.pipeline.run_stages`.

What loads for seconds is imported late: a fault in the input should not have to wait for it, and
the workers start meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.pipeline.warm_up import COMPILE_SECONDS, are_compiled
from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.report.count_text import count_text, data_text
from dask_dedup.runtime.current_client import current_client
from dask_dedup.runtime.forkserver import start_server
from dask_dedup.runtime.limits import check_floor, memory_limit
from dask_dedup.runtime.shares import memory_per_worker
from dask_dedup.settings.option_names import settings_from
from dask_dedup.settings.run_settings import Settings

if TYPE_CHECKING:
    from dask_dedup.data.dataset import Dataset
    from dask_dedup.pipeline.relabel import Source
    from dask_dedup.results.keep_rules import KeepRules
    from dask_dedup.results.result import Result
    from dask_dedup.runtime.executor import Execute, Progress
    from dask_dedup.storage.run_folder import RunFolder
    from dask_dedup.storage.run_log import RunLog

__all__ = ["Flags", "Say", "log_line", "run", "run_into"]

logger = logging.getLogger(__name__)

#: Takes one line that says what happens.
Say = Callable[[str], None]


def run(
    dataset: str | AnyPath,
    out: str | AnyPath,
    settings: Settings | Mapping[str, Any] | str | AnyPath | None = None,
    *,
    overwrite: bool = False,
    break_lock: bool = False,
    keep_stages: bool = False,
    execute: Execute | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
    **keywords: Any,
) -> Result:
    """Find the duplicates of a data set and write everything about them; computes.

    What the run will cost is said first, and it is refused where it does not fit into the workers'
    memory or onto the disk. The same call again continues where it was stopped.

    Where a `distributed.Client` is current, its workers are used, whatever the settings say of
    workers; else they are started as the settings say, as processes of this machine by default.
    Those do not run the calling script again, so it needs no ``if __name__ == "__main__"``.

    Parameters
    ----------
    dataset : path or URL
        A folder as `read_dataset` takes it.
    out : path or URL
        Where the results go: a new or empty folder, or one of an earlier run.
    settings : Settings, mapping or path, optional
        A mapping of tables or of dotted names, ``{"cells.probes": 12}``, or a TOML file.
    overwrite : bool
        Begin anew even if the folder holds a finished or interrupted run.
    break_lock : bool
        Take ``out``, a URL, from a run that has died on another machine.
    keep_stages : bool
        Keep the working files, under ``out/stages`` or ``work``.
    execute : callable, optional
        How tasks are computed, instead of all that is said above of workers: for one,
        `dask_dedup.runtime.executor.compute_tasks`, on the current Dask scheduler.
    progress : Progress, optional
        Follows the stages; by default bars on a terminal and in a notebook, else nothing.
        `dask_dedup.runtime.executor.NoProgress` shows nothing.
    say : callable, optional
        Takes each line about the run: data set, plan, workers; by default it is logged (INFO).
    **keywords
        Single settings, which win, by the names that options of ``dask-dedup run`` have:
        ``threshold=0.9, workers=4, skip_bad_parts=True``.

    Returns
    -------
    Result
        As `dask_dedup.open_result` returns it of ``out``. It is a mapping, too: of the content of
        ``out/summary.json``.

    Raises
    ------
    SettingsError
        A keyword or setting is unknown, or its value is out of range.
    InputError, OutputError, CapacityError, ClusterError, StoreError
        See `dask_dedup.errors`.

    Examples
    --------
    >>> import dask_dedup, tempfile
    >>> from dask_dedup.runtime.executor import compute_tasks
    >>> with tempfile.TemporaryDirectory() as out:
    ...     result = dask_dedup.run(
    ...         "examples/data/clipart", out, threshold=0.9, audit_queries=0, execute=compute_tasks
    ...     )
    >>> result["rows"], result["threshold"]
    (10248, 0.9)
    """
    chosen, out, say = settings_from(settings, keywords), as_path(out), say or log_line
    client = current_client() if execute is None else None
    if execute is None and client is None and chosen.cluster.kind == "local":
        start_server(PRELOAD)  # unless it runs already; imports for seconds, beside what follows
    from dask_dedup.pipeline.unreadable_parts import open_dataset

    data = open_dataset(dataset, out, chosen)
    say(data_text(dataset, data.rows, len(data.parts), data.dim))
    flags = Flags(overwrite, break_lock, keep_stages)
    return run_into(out, data, chosen, flags, say, execute, client, progress)


class Flags(NamedTuple):
    """What `run` takes beside settings: see there."""

    overwrite: bool = False
    break_lock: bool = False
    keep_stages: bool = False


def run_into(
    out: AnyPath,
    data: Dataset,
    settings: Settings,
    flags: Flags,
    say: Say,
    execute: Execute | None,
    client: Any,
    progress: Progress | None,
    source: Source | None = None,
) -> Result:
    """Do a run in its folder, with the data set open; see `run`.

    ``client`` is that of the caller, where it is to be used; ``source`` is another run, from whose
    forest this one is labelled.
    """
    from dask_dedup.pipeline.page import check_pictures
    from dask_dedup.pipeline.relabel import find_kept
    from dask_dedup.pipeline.stages import WORKING
    from dask_dedup.pipeline.unreadable_parts import list_quarantined, result_settings
    from dask_dedup.results.keep_rules import make_rules
    from dask_dedup.results.result import Result
    from dask_dedup.storage.run_folder import RunFolder
    from dask_dedup.storage.run_log import RunLog

    check_pictures(data, settings)
    rules = make_rules(settings.keep, data.columns, data.rows)
    with (
        RunFolder(
            out,
            result_settings(data, settings, rules.digests),
            data.fingerprint,
            flags.overwrite,
            settings.compute.work,
            flags.break_lock,
            source=(absolute_name(data.path), data.sketch),
            working=WORKING,
        ) as folder,
        RunLog() as log,
    ):
        say = log.beside(say)
        described = data_text(data.path, data.rows, len(data.parts), data.dim)
        log.note(f"dask_dedup {version('dask_dedup')}: {described}")
        folder.quarantined = list_quarantined(data)
        is_unverified = settings.finder == "adc" and not settings.adc.verify
        if is_unverified and settings.clusters.linkage == "star":
            say(
                "linkage components: one row of each cluster stays, since pairs that are not "
                "verified are no reason to drop a row; --verify allows star"
            )
        if folder.is_finished():
            say(f"{out}: finished before with these settings; nothing to do")
            return Result(out, folder.read_summary())
        kept = find_kept(folder, settings) if source is None else source.search
        if kept is not None:
            say(
                f"the forest in {source.path if source else out}, searched from "
                f"{kept['search_threshold']:g} up, answers threshold "
                f"{settings.clusters.threshold:g}: only the clusters are made anew"
            )
        start = _Start(data, folder, settings, kept, say, source, rules, log)
        summary = start.run(execute, client, progress, flags.keep_stages)
        return Result(out, summary, is_new=True)


def log_line(line: str) -> None:
    """Log what `run` says, where nobody else takes it."""
    logger.info("%s", line)


class _Start:
    """A run whose folder is open: plans, has workers, and does the stages."""

    def __init__(
        self,
        data: Dataset,
        folder: RunFolder,
        settings: Settings,
        kept: Mapping[str, Any] | None,
        say: Say,
        source: Source | None,
        rules: KeepRules,
        log: RunLog,
    ) -> None:
        self.rules = rules
        self.data, self.folder, self.settings = data, folder, settings
        self.kept, self.say, self.source, self.log = kept, say, source, log
        self.began = time.perf_counter()

    def run(
        self,
        execute: Execute | None,
        client: Any,
        progress: Progress | None,
        keep_stages: bool,
    ) -> dict[str, Any]:
        """Claim the folder once it is known that the run fits; do the stages."""
        settings = self.settings
        # Only the workers of a scheduler that runs already can say what they are.
        is_foreign = execute is not None or client is not None or "://" in settings.cluster.kind
        if not is_foreign:
            self._begin()
        importing = Thread(target=_import_stages, args=(settings.finder,), daemon=True)
        importing.start()
        with self._workers(execute, client) as executor:
            workers, memory = self._describe_workers(executor)
            if is_foreign:
                self._begin(workers, memory)
            importing.join()
            from dask_dedup.pipeline.job import Job
            from dask_dedup.pipeline.run_stages import run_stages
            from dask_dedup.report.progress import library_progress

            if not is_foreign and settings.cluster.kind == "local" and not are_compiled():
                self.say(f"compiling kernels (once): about {COMPILE_SECONDS} s")

            def details() -> dict[str, Any]:
                peak = getattr(executor, "peak_bytes", None)
                known = {"workers": workers} if is_foreign and workers else {}
                if peak is not None and (is_foreign or settings.cluster.kind != "local"):
                    known["worker_peak_bytes"] = peak()
                return known

            progress = progress or library_progress()
            job = Job(
                self.data,
                self.folder,
                settings,
                executor,
                progress,
                memory,
                details=details,
                rules=self.rules,
                note=self.log.note,
                began=self.began,
            )
            try:
                summary = run_stages(job, keep_stages)
                self.log.note(
                    f"finished: {summary['duplicates']:,} duplicates, {summary['dropped']:,} rows "
                    f"dropped, {summary['kept']:,} kept"
                )
                return summary
            finally:
                progress.close()

    @contextmanager
    def _workers(self, execute: Execute | None, client: Any) -> Iterator[Execute]:
        """Give what computes tasks: what was handed in, on the current Client, or new workers."""
        if execute is not None:
            yield execute
            return
        from dask_dedup.runtime.deployment import open_cluster, use_client
        from dask_dedup.storage.objects import scratch_beside

        settings, stages = self.settings, self.folder.stages
        if client is not None:
            yield use_client(client, settings.cluster, stages)
            return
        with (
            scratch_beside(stages) as scratch,
            open_cluster(settings, scratch, stages, preload=PRELOAD) as started,
        ):
            yield started

    def _describe_workers(self, execute: Any) -> tuple[int | None, int]:
        """Return how many workers there are, if that is known, and what each may use."""
        share = memory_per_worker(self.settings.compute)
        if not hasattr(execute, "workers"):
            return None, share
        workers, memory = len(execute.workers()), execute.memory_bytes or share
        seen = f"; dashboard at {execute.dashboard}" if execute.dashboard else ""
        self.say(f"{count_text(workers, 'worker')} with {memory / 1e9:.1f} GB each{seen}")
        return workers, memory

    def _begin(self, workers: int | None = None, memory: int | None = None) -> None:
        """Say what the run will cost, refuse what does not fit, and claim the folder.

        ``workers`` and ``memory``: of each, where it is not this machine that decides.
        """
        from dask_dedup.pipeline.stages import PLAN
        from dask_dedup.storage.files import write_json

        settings, planned = self.settings, None
        if memory is None and settings.cluster.kind == "local":
            check_floor(memory_per_worker(settings.compute), memory_limit())
        if self.kept is None:
            planned = self._plan(workers, memory)
        self.folder.begin(self.kept)
        self.log.open(self.folder.path)
        if self.source is not None:
            self.source.hand_over(self.folder.path)
        if planned is not None:
            write_json(self.folder.stages / PLAN, planned)

    def _plan(self, workers: int | None, memory: int | None) -> dict[str, Any]:
        from dask_dedup.planning.cost_model import describe
        from dask_dedup.planning.preflight import check_fits, describe_dataset, plan_run
        from dask_dedup.report.plan_table import plan_lines

        planned = plan_run(describe_dataset(self.data), self.settings, workers)
        free = check_fits(planned, self.data, self.settings, self.folder.path, memory)
        described = describe(planned)
        for line in plan_lines(described, memory or memory_per_worker(self.settings.compute), free):
            self.say(line)
        return described


def _import_stages(finder: str) -> None:
    """Import what the stages need, beside the start of the workers."""
    from dask_dedup.pipeline import run_stages  # noqa: F401
    from dask_dedup.pipeline.finders import choose_finder

    choose_finder(finder)
