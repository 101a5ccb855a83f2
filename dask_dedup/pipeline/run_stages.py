"""The whole chain, stage by stage, in a folder that is claimed: see `dask_dedup.pipeline.run`.

1. The finder's stages (`join_finder`, `adc_finder`): from rows to files of edges.
2. forest: what the finder's tasks have found merges to one maximum spanning forest.
3. clusters: labels from the forest, joined to each part's metadata; the audit is scored.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from threading import Thread
from typing import Any

from dask.delayed import delayed

from dask_dedup.data.spans import cut_spans
from dask_dedup.errors import DamagedError, OutputError, UnreadableError
from dask_dedup.graph.choice import choose_merge
from dask_dedup.graph.forest_file import UNVERIFIED
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.finders import choose_finder
from dask_dedup.pipeline.job import Found, Job, conserve
from dask_dedup.pipeline.packing import pack_rows
from dask_dedup.pipeline.relabel import describe_search, found_before
from dask_dedup.pipeline.stages import CLUSTERS, FOREST, LABELS
from dask_dedup.pipeline.unreadable_parts import list_quarantined, note_bad
from dask_dedup.report.histogram import (
    histogram_frame,
    plot_histogram,
    prepare_plots,
    write_histogram_csv,
)
from dask_dedup.report.summary import count_clusters, sum_linked_through_others, versions
from dask_dedup.runtime.executor import OnWorker
from dask_dedup.runtime.peak_memory import TreeMemory
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import exists
from dask_dedup.storage.stage import Stage

__all__ = ["run_stages"]

logger = logging.getLogger(__name__)

_STAGES = "dask_dedup.pipeline.stage_tasks"


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
        began = time.perf_counter()
        job = replace(job, data=pack_rows(job))
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
        clusters = _write_clusters(job, found, forest)
        histogram = histogram_frame(clusters["sizes"])
        counts = count_clusters(histogram, data.rows, clusters["invalid_rows"])
        conserve("clusters", clusters["rows"], data.rows)
        conserve("duplicates against forest edges", counts["duplicates"], clusters["edges"])
        data.check_unchanged(content=True)
        for stage, name, records in (*clusters["results"], *forest.results):
            folder.publish(stage, name, records)
        write_histogram_csv(histogram, folder.path / "histogram.csv")
        plot_histogram(histogram, settings.clusters.threshold, folder.path / "histogram.png")
        with write_aside(folder.path / "settings.toml", durable=True) as temporary:
            temporary.write_text(settings.to_toml(), encoding="utf-8")
    summary = {
        "dataset": data.path,
        "dim": data.dim,
        "dtype": data.parts[0].embeddings.dtype,
        "parts": len(data.filled_parts),
        **job.describe_workers(),
        **counts,
        "linked_through_others": sum_linked_through_others(
            clusters["linked_through_others"], counts["duplicates"]
        ),
        "threshold": settings.clusters.threshold,
        "search_threshold": search["search_threshold"],
        "modality": settings.read.modality,
        "finder": settings.finder,
        "is_verified": found.answers is not None,
        "stages": job.times,
        "wall_seconds": round(time.perf_counter() - began, 3),
        "peak_memory_bytes": memory.peak_bytes,
        "audit": clusters["audit"],
        "bad_files": list_quarantined(data),
        "found": found.counts,
        "versions": versions(),
    }
    folder.finish(summary, keep_stages, search)
    return summary


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


def _write_clusters(job: Job, found: Found, forest: _Forest) -> dict[str, Any]:
    """Label the components, score the audit, write the clusters of every span."""
    settings = job.settings
    label_stage = job.stage(LABELS, found.keys)
    bad = [part.index for part in job.data.parts if part.metadata_problem is not None]
    stage = job.stage(CLUSTERS, {**found.keys, **({"without": bad} if bad else {})})
    clusters, invalid = stage.folder / "clusters", stage.folder / "invalid"
    label_task = (
        found.layout,
        forest.path,
        job.data.rows,
        forest.how,
        found.lowest,
        settings.clusters.threshold,
        settings.seed,
        settings.audit.queries,
        label_stage.folder,
    )
    tasks = {
        span.name: (
            found.layout,
            span,
            job.data.columns,
            label_stage.folder,
            clusters,
            invalid,
            settings.clusters.threshold,
        )
        for span in cut_spans(job.data.parts)
    }
    with job.timed(CLUSTERS):
        (labelled,) = job.run_stage(
            label_stage, OnWorker(_STAGES, "label_and_score"), {"labels": label_task}
        )
        records = job.run_stage(stage, OnWorker(_STAGES, "write_span"), tasks)
    sizes: Counter[int] = Counter()
    for record in records:
        sizes.update({int(size): count for size, count in record["sizes"].items()})
    audit = labelled["audit"]
    if audit:
        audit["seconds"] = round(audit["seconds"] + found.audit_seconds, 3)
    return {
        "rows": sum(record["rows"] for record in records),
        "invalid_rows": sum(record["invalid_rows"] for record in records),
        "sizes": sizes,
        "linked_through_others": [record["linked_through_others"] for record in records],
        "edges": labelled["edges"],
        "audit": audit,
        "results": [
            (stage, "clusters", records),
            (stage, "invalid", records),
            *([] if job.folder.search else [(label_stage, "audit", [labelled])]),
        ],
    }
