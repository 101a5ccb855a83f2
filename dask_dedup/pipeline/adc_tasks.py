"""What the workers do for the search by quantized distances: one function per kind of task."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from dask_dedup.data.finder_files import read_invalid, read_linked
from dask_dedup.data.spans import Span, read_span
from dask_dedup.graph.forest import spanning_edges
from dask_dedup.ivf.adaptive_threshold import AdaptiveRule, AdcSearch, PairEdges
from dask_dedup.ivf.faiss_index import search_shards, self_distances, use_threads
from dask_dedup.ivf.shard_files import IndexLayout
from dask_dedup.ivf.shards import embed, fill_shard, open_base, open_shards
from dask_dedup.ivf.sizes import BLOCK_ROWS, CALIBRATION_K
from dask_dedup.ivf.tolerance import Scored, choose_tolerance, score_results
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.pipeline.audit import AuditCollector, AuditQueries
from dask_dedup.pipeline.audit_pairs import read_pairs
from dask_dedup.storage.files import write_frame
from dask_dedup.vectors.pca import load_pca
from dask_dedup.vectors.unit import Block, prepare_block

__all__ = [
    "AUDIT",
    "TRUTH",
    "AdcPlan",
    "Sample",
    "calibrate_sample",
    "fill_and_audit",
    "score_sample",
    "search_and_write",
]

AUDIT, TRUTH = "audit", "truth"  # samples of which all true pairs are found


class Sample(NamedTuple):
    """A sample of rows whose true pairs are collected while the parts are read."""

    name: str
    queries: int

    @property
    def file(self) -> str:
        """Name of the file that holds the rows, without its ending."""
        return "queries" if self.name == AUDIT else f"{self.name}-queries"


class AdcPlan(NamedTuple):
    """How every span is searched; ``threshold`` None: pairs are not verified."""

    layout: IndexLayout
    rule: AdaptiveRule
    k: int
    nprobe: int
    threshold: float | None
    threads: int


def fill_and_audit(
    layout: IndexLayout,
    name: str,
    spans: tuple[Span, ...],
    threads: int,
    samples: tuple[Sample, ...],
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Write one shard; collect the true pairs of the samples from its spans."""
    if not samples:
        return {**fill_shard(layout, name, spans, threads, True), "audit_seconds": 0.0}
    pca = load_pca(as_path(layout.folder) / "pca.safetensors")
    queries = {sample.name: _load_queries(layout, sample) for sample in samples}
    collectors = {
        (span.index, kind): AuditCollector(rows, pca, threshold, seed)
        for span in spans
        for kind, rows in queries.items()
    }

    def watch(span: Span, block: Block) -> None:
        codes = pca.to_codes(pca.transform(block.vectors))
        for kind in queries:
            collectors[span.index, kind].add(block, codes)

    record = fill_shard(layout, name, spans, threads, True, watch)
    for span in spans:
        for kind in queries:
            collectors[span.index, kind].write(layout.path(kind, span))
    seconds = sum(collector.seconds for collector in collectors.values())
    return {**record, "audit_seconds": seconds}


def score_sample(layout: IndexLayout, nprobe: int, seed: int) -> Scored:
    """Search the sample of known truth, and say which results are true.

    ``seed``: that of `fill_and_audit`.
    """
    use_threads(1)
    torch.set_num_threads(1)
    queries = _load_queries(layout, Sample(TRUTH, 0))
    truth = read_pairs([layout.path(TRUTH, span) for span in layout.spans], seed)
    # Rows that repeat an earlier one of their span are not indexed: nothing can find them.
    copies = np.concatenate([read_linked(layout, span)["dst"].to_numpy() for span in layout.spans])
    truth = truth[~truth["row_id"].isin(copies) & ~truth["query"].isin(copies)]
    asks = ~np.isin(queries.row_ids, copies)
    base, opened = open_base(layout), open_shards(layout)
    compressed = embed(prepare_block(queries.rows[asks]), layout.model_path)
    k = min(CALIBRATION_K, sum(shard.rows for shard in layout.shards))
    found = search_shards(base, opened, compressed, max(k, 1), nprobe)
    return score_results(
        queries.row_ids[asks],
        truth,
        found.distances,
        found.row_ids,
        self_distances(base, compressed),
    )


def calibrate_sample(
    layout: IndexLayout,
    nprobe: int,
    seed: int,
    slack: tuple[float, float],
    asked: dict[str, float],
) -> dict[str, Any]:
    """Choose the tolerance on the sample of known truth; ``slack`` is epsilon and rounding."""
    scored = score_sample(layout, nprobe, seed)
    return choose_tolerance(scored, *slack, **asked).to_dict()


def search_and_write(plan: AdcPlan, span: Span, path: AnyPath) -> dict[str, int]:
    """Search the rows of one span in all shards; write the forest of what passes."""
    torch.set_num_threads(plan.threads)
    use_threads(plan.threads)
    layout = plan.layout
    left_out = np.concatenate(
        [
            read_invalid(layout, span)["row_id"].to_numpy(),
            read_linked(layout, span)["dst"].to_numpy(),
        ]
    )
    search = AdcSearch(open_base(layout), open_shards(layout), plan.rule, plan.k, plan.nprobe)
    edges = PairEdges(layout.part_list.rows, plan.threshold, spanning_edges)
    searched = 0
    for start in range(0, span.rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, span.rows)
        vectors = prepare_block(read_span(span, start, stop))
        row_ids = span.row_start + np.arange(start, stop)[vectors.reason == 0]
        asks = ~np.isin(row_ids, left_out)
        compressed, row_ids = embed(vectors, layout.model_path)[asks], row_ids[asks]
        searched += len(row_ids)
        for passed in search.search(compressed, row_ids):
            edges.add(row_ids[passed.query], passed.row_id, passed.distance)
    forest = edges.finish()
    write_frame(path, forest)
    return {
        "edges": len(forest),
        "rows": span.rows,
        "searched": searched,
        "saturated": search.saturated,
        "largest_k": search.largest_k,
        "candidates": edges.candidates,
        "pairs": edges.pairs,
    }


def _load_queries(layout: IndexLayout, sample: Sample) -> AuditQueries:
    return AuditQueries.read(as_path(layout.folder) / f"{sample.file}.safetensors")
