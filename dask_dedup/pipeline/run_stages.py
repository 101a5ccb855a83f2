"""The whole chain, stage by stage, in a folder that is claimed: see `dask_dedup.pipeline.run`.

1. The finder's stages (`join_finder`, `adc_finder`): from rows to files of edges.
2. forest: what the finder's tasks have found merges to one maximum spanning forest.
3. witnesses: labels from the forest, and which rows stay; the audit is scored.
4. clusters: both joined to each part's metadata.
5. report: the page, from what is published.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from threading import Thread
from typing import Any, NamedTuple

from dask.delayed import delayed

from dask_dedup.data.spans import cut_spans
from dask_dedup.errors import DamagedError, OutputError, UnreadableError
from dask_dedup.graph.choice import choose_merge
from dask_dedup.graph.forest_file import UNVERIFIED
from dask_dedup.paths import AnyPath, absolute_name
from dask_dedup.pipeline.finders import choose_finder
from dask_dedup.pipeline.job import Found, Job, conserve
from dask_dedup.pipeline.keep_stages import Keeping
from dask_dedup.pipeline.packing import pack_rows
from dask_dedup.pipeline.page import make_page
from dask_dedup.pipeline.relabel import describe_search, found_before
from dask_dedup.pipeline.similarities import remark_on
from dask_dedup.pipeline.span_members import SpanSources
from dask_dedup.pipeline.stages import CLUSTERS, COMPARE, FOREST, GROUPS, LABELS, PLAN, WITNESSES
from dask_dedup.pipeline.unreadable_parts import list_quarantined, note_bad
from dask_dedup.report.histogram import (
    histogram_frame,
    plot_histogram,
    prepare_plots,
    write_histogram_csv,
)
from dask_dedup.report.summary import (
    count_clusters,
    largest_clusters,
    sum_linked_through_others,
    versions,
)
from dask_dedup.runtime.executor import OnWorker
from dask_dedup.runtime.peak_memory import TreeMemory
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.files import read_json, write_aside
from dask_dedup.storage.objects import exists
from dask_dedup.storage.run_folder import DECISIONS_FILE, RunFolder
from dask_dedup.storage.stage import Stage

__all__ = ["run_stages"]

logger = logging.getLogger(__name__)

_STAGES = "dask_dedup.pipeline.stage_tasks"
_WITNESSES = "dask_dedup.pipeline.witness_tasks"


def run_stages(job: Job, keep_stages: bool) -> dict[str, Any]:
    """Do all stages of a job, in a folder that is claimed; return the summary, which is written.

    A working file that turns out damaged is made again, once.

    Parameters
    ----------
    job : Job
        Its folder is claimed with `RunFolder.begin`.
    keep_stages : bool
        Keep the working files.

    Raises
    ------
    InputError, OutputError
    """
    folder = job.folder
    mended: set[str] = set()  # else a file that is damaged again would be made again for ever
    while True:
        try:
            return _run_stages(replace(job, check=job.data.check_unchanged, times=[]), keep_stages)
        except DamagedError as error:
            if error.path in mended or not folder.mend(error.path):
                raise OutputError(
                    f"{str(error).rstrip('.')}. Put the file back, or begin anew with --overwrite."
                ) from error
            mended.add(error.path)
            logger.warning("%s: made again", str(error).rstrip("."))
        except UnreadableError as error:
            if job.settings.read.skip_bad_parts:
                raise note_bad(folder, job.data, error) from error
            raise


def _run_stages(job: Job, keep_stages: bool) -> dict[str, Any]:
    data, folder, settings = job.data, job.folder, job.settings
    with TreeMemory() as memory:
        keeping = Keeping(job)
        keeping.decide()
        job = keeping.job = replace(job, data=pack_rows(job))
        if folder.search is None:
            found = choose_finder(settings.finder)(job).find()
            search = describe_search(found, settings)
        else:
            found = found_before(job, folder.search)
            search = dict(folder.search)
        # A second of imports and fonts, while there is little else to do.
        Thread(target=prepare_plots, daemon=True).start()
        forest = _Forest(job, found)
        if folder.search is None:
            forest.merge()
        labelled = _find_witnesses(job, found, forest, keeping)
        clusters = _write_clusters(job, found, labelled, keeping)
        histogram = histogram_frame(clusters["sizes"])
        counts = count_clusters(histogram, data.rows, clusters["invalid_rows"])
        conserve("clusters", clusters["rows"], data.rows)
        conserve("duplicates against forest edges", counts["duplicates"], clusters["edges"])
        data.check_unchanged(content=True)
        for stage, name, records in (*clusters["results"], *forest.results):
            folder.publish(stage, name, records)
        write_histogram_csv(histogram, folder.path / "histogram.csv")
        plot_histogram(
            histogram,
            settings.clusters.threshold,
            folder.path / "histogram.png",
            clusters["largest"],
        )
        with write_aside(folder.path / "settings.toml", durable=True) as temporary:
            temporary.write_text(settings.to_toml(), encoding="utf-8")
        folder.write_optional(DECISIONS_FILE, keeping.decisions_text)
    summary = {
        "dataset": absolute_name(data.path),
        "dim": data.dim,
        "dtype": data.parts[0].embeddings.dtype,
        "parts": len(data.filled_parts),
        **job.describe_workers(),
        **counts,
        "largest_clusters": clusters["largest"],
        "kept": clusters["kept"],
        "dropped": data.rows - clusters["kept"],
        **clusters["without_witness"],
        **keeping.counts,
        "linkage": _linkage_of(found, settings),
        "linked_through_others": sum_linked_through_others(
            clusters["linked_through_others"], counts["duplicates"]
        ),
        "threshold": settings.clusters.threshold,
        "search_threshold": search["search_threshold"],
        **({"source_run": search["source_run"]} if "source_run" in search else {}),
        "modality": settings.read.modality,
        "finder": settings.finder,
        "is_verified": found.answers is not None,
        "stages": job.times,
        **_planned(folder, settings),
        "wall_seconds": round(time.perf_counter() - job.began, 3),  # the page shows it
        "peak_memory_bytes": memory.peak_bytes,
        "audit": clusters["audit"],
        "encoder": settings.encoder,
        "similarities": clusters["similarities"],
        "bad_files": list_quarantined(data),
        "found": found.counts,
        "versions": versions(),
    }
    make_page(job, summary)
    summary["wall_seconds"] = round(time.perf_counter() - job.began, 3)
    folder.finish(summary, keep_stages, search)
    if clusters["similarities"] is not None:
        remark = remark_on(clusters["similarities"], settings)
        logger.log(logging.WARNING if remark.is_warning else logging.INFO, "%s", remark.text)
    return summary


def _planned(folder: RunFolder, settings: Settings) -> dict[str, Any]:
    """Return the seconds that the plan expected of each stage, where the run began with one."""
    has_plan = folder.search is None and settings.finder == "join"  # else it is of another run
    planned = read_json(folder.stages / PLAN) if has_plan else None
    if not isinstance(planned, Mapping):
        return {}
    return {"planned_seconds": {one["name"]: round(one["seconds"], 3) for one in planned["stages"]}}


class _Forest:
    """The forest of one job: where it is, and how it is merged."""

    def __init__(self, job: Job, found: Found) -> None:
        self.job, self.found = job, found
        self.stage = job.stage(FOREST, found.keys)
        self.folder = self.stage.folder / "forest"
        self.how = choose_merge(found.edges, job.data.rows, job.memory_bytes)
        self.results: list[tuple[Stage, str, list[dict[str, Any]]]] = []  # to be published

    @property
    def path(self) -> AnyPath:
        """The file: inside the stage until it is published."""
        inside = self.folder / "part-00000.parquet"
        published = self.job.folder.path / "forest" / inside.name
        return published if exists(published) and not exists(inside) else inside

    def merge(self) -> None:
        """Merge what the finder's tasks have found."""
        function = OnWorker("dask_dedup.graph.stream", "stream_merge")
        path = self.folder / "part-00000.parquet"
        answers = self.found.answers
        notes = UNVERIFIED if answers is None else answers.notes()
        task: tuple = (self.found.paths, self.job.data.rows, path, notes)
        if self.how == "tree":
            from dask_dedup.graph.components import merge_tree

            function = OnWorker(_STAGES, "write_forest")
            read = delayed(OnWorker(_STAGES, "read_forest"))
            forests = [read(one) for one in self.found.paths]
            task = (merge_tree(forests), path, notes)
        with self.job.timed(FOREST):
            records = self.job.run_stage(
                self.stage, function, {"forest": task}, lambda _: self.job.data.rows
            )
        self.results = [(self.stage, "forest", records)]


class _Labelled(NamedTuple):
    """What the stage before the clusters hands on.

    ``labelled``: its stage, and the record of the one task; ``sources``: where it is written which
    rows stay.
    """

    stage: Stage
    record: dict[str, Any]
    sources: SpanSources


def _find_witnesses(job: Job, found: Found, forest: _Forest, keeping: Keeping) -> _Labelled:
    """Label the components, score the audit, find which rows stay and the witness of the others."""
    settings, threshold = job.settings, job.settings.clusters.threshold
    known = {**found.keys, **job.rules.digests}
    labels, compare = job.stage(LABELS, found.keys), job.stage(COMPARE, known)
    groups, witnesses = job.stage(GROUPS, known), job.stage(WITNESSES, known)
    is_ordered = job.rules.by is not None
    label_task = (
        found.files,
        forest.path,
        job.data.rows,
        forest.how,
        found.lowest,
        threshold,
        settings.seed,
        settings.audit.queries,
        labels.folder,
    )
    with job.timed(WITNESSES):
        (labelled,) = job.run_stage(
            labels, OnWorker(_STAGES, "label_and_score"), {"labels": label_task}
        )
        ranks = keeping.rank(found, labels, labelled["edges"])
        compare_tasks = {
            span.name: (
                found.files,
                span,
                labels.folder,
                compare.folder,
                threshold,
                ranks,
            )
            for span in keeping.spans
        }
        records = job.run_stage(compare, OnWorker(_WITNESSES, "compare_span"), compare_tasks)
        dropped = None
        if _linkage_of(found, settings) == "star":
            count = 0
            if any(record["below"] for record in records):
                task = (
                    found.files,
                    compare.folder,
                    forest.path,
                    job.data.rows,
                    threshold,
                    groups.folder,
                    is_ordered,
                )
                (grouped,) = job.run_stage(
                    groups, OnWorker(_WITNESSES, "group_below"), {"groups": task}
                )
                count = grouped["tasks"]
            where = (threshold, witnesses.folder, is_ordered)
            tasks = {
                f"witnesses-{number:05d}": (found.files, groups.folder, number, *where)
                for number in range(count)
            }
            found_rows = job.run_stage(witnesses, OnWorker(_WITNESSES, "find_and_write"), tasks)
            dropped = [witnesses.folder / record["file"] for record in found_rows]
    return _Labelled(labels, labelled, SpanSources(compare.folder, threshold, dropped))


def _linkage_of(found: Found, settings: Settings) -> str:
    """Return which rows are dropped: pairs that are not verified are witnesses of nothing."""
    return "components" if found.answers is None else settings.clusters.linkage


def _write_clusters(
    job: Job, found: Found, labelled: _Labelled, keeping: Keeping
) -> dict[str, Any]:
    """Write the clusters of every span."""
    bad = [part.index for part in job.data.parts if part.metadata_problem is not None]
    known = {**found.keys, **job.rules.digests}
    stage = job.stage(CLUSTERS, {**known, **({"without": bad} if bad else {})})
    clusters, invalid = stage.folder / "clusters", stage.folder / "invalid"
    with job.timed(CLUSTERS):
        sources = keeping.settle(labelled.sources)
        tasks = {
            span.name: (
                found.files,
                span,
                job.data.columns,
                sources,
                job.rules.merge,
                clusters,
                invalid,
            )
            for span in cut_spans(job.data.parts)
        }
        records = job.run_stage(stage, OnWorker(_STAGES, "write_span"), tasks)
    sizes: Counter[int] = Counter()
    for record in records:
        sizes.update({int(size): count for size, count in record["sizes"].items()})
    audit = labelled.record["audit"]
    if audit:
        audit["seconds"] = round(audit["seconds"] + found.audit_seconds, 3)
    return {
        "rows": sum(record["rows"] for record in records),
        "invalid_rows": sum(record["invalid_rows"] for record in records),
        "kept": sum(record["kept"] for record in records),
        "without_witness": {
            name: sum(record[name] for record in records)
            for name in ("dropped_by_cap", "dropped_by_decision")
        },
        "sizes": sizes,
        "largest": largest_clusters(one for record in records for one in record["largest"]),
        "linked_through_others": [record["linked_through_others"] for record in records],
        "edges": labelled.record["edges"],
        "audit": audit,
        "similarities": labelled.record["similarities"],
        "results": [
            (stage, "clusters", records),
            (stage, "invalid", records),
            *([] if job.folder.search else [(labelled.stage, "audit", [labelled.record])]),
        ],
    }
