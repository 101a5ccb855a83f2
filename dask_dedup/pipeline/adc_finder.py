"""The finder `adc`: the paper's own chain, search by quantized distances.

1. train      sample → base index; samples of rows whose true pairs are found on the way
2. shards     each group of spans: read, compress, encode, audit, write once
3. tolerance  the sample of known truth is searched; T is chosen
4. search     each span: its rows search all shards; verification, contraction to a forest
"""

from __future__ import annotations

import logging
from typing import Any

from dask.delayed import delayed

from dask_dedup.compressors.base import model_digest
from dask_dedup.data.part_list import write_parts
from dask_dedup.data.spans import Span
from dask_dedup.graph.forest_range import ForestRange
from dask_dedup.ivf.adaptive_threshold import AdaptiveRule
from dask_dedup.ivf.shard_files import IndexLayout
from dask_dedup.ivf.shards import (
    group_spans,
    open_model,
    train_index,
    write_shards,
)
from dask_dedup.ivf.sizes import default_factory
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.adc_tasks import (
    AUDIT,
    TRUTH,
    AdcPlan,
    Sample,
    calibrate_sample,
    fill_and_audit,
    search_and_write,
)
from dask_dedup.pipeline.audit import sample_queries
from dask_dedup.pipeline.finders import Finder
from dask_dedup.pipeline.job import Found, Job, conserve
from dask_dedup.pipeline.stages import CALIBRATED, SEARCH, SHARDS, TOLERANCE, TRAIN, values_of
from dask_dedup.runtime.executor import ignore_result
from dask_dedup.runtime.shares import threads_together
from dask_dedup.storage.files import read_json, write_json
from dask_dedup.storage.stage import TRAINED, files_of_note, read_note, write_note
from dask_dedup.vectors.fit_pca import fit_pca
from dask_dedup.vectors.pca import save_pca

__all__ = ["AdcFinder"]

logger = logging.getLogger(__name__)

_TRUTH_PURPOSE = 9  # of the sample: see vectors.sample
_PCA_DIM = 64  # of the filter with which the truth of samples is found


class AdcFinder(Finder):
    """The stages of the finder, in one job; see `dask_dedup.ivf.adaptive_threshold`."""

    name = "adc"

    def __init__(self, job: Job) -> None:
        self.job = job
        settings = job.settings
        adc = settings.adc
        dim = open_model(adc.model).dim_out if adc.model else job.data.dim
        self.factory = adc.factory or default_factory(job.data.rows, dim)
        # Of the model counts what it holds, not where it lies; a factory may be the default one.
        known = {"adc.factory": self.factory, "adc.model": adc.model and model_digest(adc.model)}
        self.keys: dict[str, Any] = {**values_of(SEARCH, settings), **known}
        self.asked = self.keys["calibrated_to"]
        wanted = {AUDIT: settings.audit.queries, TRUTH: self.keys["calibration_queries"]}
        self.samples = tuple(Sample(*sample) for sample in wanted.items() if sample[1])
        self.shard_stage = job.stage(SHARDS, known)
        self.search_stage = job.stage(SEARCH, known)
        folder = self.shard_stage.folder
        self.layout = IndexLayout(str(folder / "base.faiss"), str(folder), adc.model)
        self.details: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}
        self.audit_seconds = 0.0

    def find(self) -> Found:
        """Find the edges."""
        self.prepare()
        edges = self._search()
        settings, spans = self.job.settings, self.layout.spans
        paths = [self._path(span) for span in spans]
        paths += [self.layout.path("linked", span) for span in spans]
        verify = settings.adc.verify
        return Found(
            self.layout,
            paths,
            edges + self.counts["identical"],
            self.keys,
            self.counts,
            self.audit_seconds,
            # Unverified similarities are quantized: the tolerance has decided, no cosine does.
            settings.clusters.threshold if verify else -1.0,
            ForestRange(settings.search_threshold, None) if verify else None,
        )

    def prepare(self) -> None:
        """Train the index and fill its shards."""
        self._train()
        self._fill_shards()

    def _train(self) -> None:
        """Train the base index; draw the samples whose true pairs are found on the way."""
        job, settings = self.job, self.job.settings
        with job.timed(TRAIN):
            self.shard_stage.prepare()
            folder = self.shard_stage.folder
            write_parts(job.data.filled_parts, folder / "parts.json")
            details = read_note(folder, TRAINED)
            advance = job.progress.advance if details is None else job.skip
            if details is None:
                before = files_of_note(folder, TRAINED)
                details = train_index(
                    job.data,
                    self.layout,
                    self.factory,
                    sample_rows=settings.adc.sample_rows,
                    iterations=settings.adc.iterations,
                    seed=settings.seed,
                    threads=threads_together(settings),
                    execute=job.execute,
                )
                if self.samples:
                    pca = fit_pca(job.data, _PCA_DIM, seed=settings.seed, execute=job.execute)
                    save_pca(pca, folder / "pca.safetensors")
                for sample in self.samples:
                    purpose = {} if sample.name == AUDIT else {"purpose": _TRUTH_PURPOSE}
                    queries = sample_queries(
                        self.layout.part_list.rows, sample.queries, settings.seed, **purpose
                    )
                    queries.write(folder / f"{sample.file}.safetensors")
                samples = [f"{sample.file}.safetensors" for sample in self.samples]
                names = ("base.faiss", "pca.safetensors", *samples)
                write_note(folder, TRAINED, details, [folder / name for name in names])
                if before not in (None, files_of_note(folder, TRAINED)):
                    self.shard_stage.forget()  # made with other models
                    self.search_stage.forget()
            self.details = details
            advance(job.data.rows)
        logger.debug(
            "index %s: %d bytes a row, trained on %d rows",
            self.factory,
            details["bytes_per_row"],
            details["sample_rows"],
        )

    def _fill_shards(self) -> None:
        """Build every shard, and collect the true pairs of the samples."""
        job, settings = self.job, self.job.settings
        tasks = {
            name: (
                self.layout,
                name,
                spans,
                settings.compute.threads,
                self.samples,
                settings.search_threshold,
                settings.seed,
            )
            for name, spans in group_spans(self.layout, self.details["bytes_per_row"]).items()
        }
        with job.timed(SHARDS):
            records = job.run_stage(self.shard_stage, fill_and_audit, tasks)
        write_shards(self.layout, records)
        conserve(SHARDS.name, sum(record["rows"] for record in records), job.data.rows)
        self.audit_seconds = sum(record["audit_seconds"] for record in records)
        for key in ("invalid", "identical", "indexed"):
            self.counts[key] = sum(record[key] for record in records)
        self.counts |= {
            "factory": self.factory,
            "lists": self.details["lists"],
            "bytes_per_row": self.details["bytes_per_row"],
            "shards": len(records),
            "index_bytes": sum(record["bytes"] for record in records),
        }

    def _search(self) -> int:
        """Choose the tolerance, search every span, write its forest; return the edges of all."""
        job, settings = self.job, self.job.settings
        adc = settings.adc
        with job.timed(TOLERANCE):
            rule = self._choose_rule()
        plan = AdcPlan(
            self.layout,
            rule,
            adc.k,
            adc.nprobe,
            settings.search_threshold if adc.verify else None,
            settings.compute.threads,
        )
        tasks = {span.name: (plan, span, self._path(span)) for span in self.layout.spans}
        with job.timed(SEARCH):
            records = job.run_stage(self.search_stage, search_and_write, tasks)
        conserve(SEARCH.name, sum(record["searched"] for record in records), self.counts["indexed"])
        for key in ("candidates", "pairs", "saturated"):
            self.counts[key] = sum(record[key] for record in records)
        self.counts |= {
            "largest_k": max(record["largest_k"] for record in records),
            "nprobe": adc.nprobe,
            "tolerance": rule.tolerance,
            "epsilon": rule.epsilon,
        }
        logger.debug(
            "search: %(candidates)d pairs passed T = %(tolerance).4g, %(pairs)d became edges; "
            "%(saturated)d rows had to be searched again, with up to %(largest_k)d neighbours",
            self.counts,
        )
        return sum(record["edges"] for record in records)

    def _choose_rule(self) -> AdaptiveRule:
        """Return the rule: with the tolerance given, or a calibrated one."""
        settings = self.job.settings
        adc = settings.adc
        rounding = self.details["distance_error"]
        apart = 2.0 - 2.0 * settings.search_threshold if adc.verify else 0.0
        if adc.tolerance is not None:
            self.job.progress.advance(self.job.data.rows)
            return AdaptiveRule(adc.tolerance, rounding + apart, rounding)
        self.search_stage.prepare()
        path = self.search_stage.folder / CALIBRATED
        chosen = read_json(path)
        advance = self.job.progress.advance if chosen is None else self.job.skip
        if chosen is None:
            task = delayed(calibrate_sample)(
                self.layout, adc.nprobe, settings.seed, (rounding + apart, rounding), self.asked
            )
            (chosen,) = self.job.execute([task], ignore_result)
            write_json(path, chosen)
        advance(self.job.data.rows)
        if not chosen["is_reached"]:
            _report_unreached(chosen, adc.verify, adc.recall, adc.precision)
        self.counts["calibration"] = chosen
        return AdaptiveRule(chosen["tolerance"], chosen["epsilon"], rounding)

    def _path(self, span: Span) -> AnyPath:
        return self.search_stage.folder / f"{span.name}.parquet"


def _report_unreached(
    chosen: dict[str, Any], verify: bool, recall: float, precision: float
) -> None:
    if not chosen["queries"]:
        logger.warning(
            "tolerance: no sampled row has a duplicate to calibrate on; %g is taken",
            chosen["tolerance"],
        )
    elif verify:
        logger.warning(
            "tolerance: recall %g is out of reach on the sample; the lists that are probed hold "
            "%.4f of the pairs. A higher --nprobe finds more.",
            recall,
            chosen["reachable_recall"],
        )
    else:
        logger.warning(
            "tolerance: no value keeps a precision of %g on the sample: only rows of equal codes "
            "pass, with a precision of %.2f. A finer index (more bytes) or --verify does better.",
            precision,
            chosen["precision"],
        )
