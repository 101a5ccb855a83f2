"""The audit: how much of the truth a run found, measured on a seeded sample of its rows.

1. Sample query rows by hash. 2. While the layout is written, compare each block with all queries:
the lossless filter first, then every candidate at full dimension in float64. That sees every row of
the input and needs no second pass over it; of the run it shares the PCA, but neither the cells, nor
the layout, nor the join. 3. After labelling, look up which true pairs are in one cluster.

Cost: queries * (kept + 1) multiplications of small integers a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from dask_dedup.data.part_rows import PartRows
from dask_dedup.paths import AnyPath
from dask_dedup.pipeline.audit_pairs import AUDIT_PURPOSE, PAIRS_PER_QUERY, PairSample
from dask_dedup.storage.files import read_arrays, write_arrays, write_frame
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows
from dask_dedup.vectors.int8_codes import code_rows, near_pairs
from dask_dedup.vectors.pca import PcaModel
from dask_dedup.vectors.sample import sample_row_ids
from dask_dedup.vectors.unit import Block, prepare_block

__all__ = ["AuditCollector", "AuditQueries", "AuditResult", "sample_queries", "score"]

_BOOTSTRAP = 1000


@dataclass(frozen=True)
class AuditQueries:
    """The sampled rows: ``row_ids`` int64 (n,), sorted; ``rows`` float (n, dim), as stored."""

    row_ids: np.ndarray
    rows: np.ndarray

    def write(self, path: AnyPath) -> None:
        """Write them as arrays."""
        write_arrays(path, row_ids=self.row_ids, rows=self.rows)

    @staticmethod
    def read(path: AnyPath) -> AuditQueries:
        """Read what `write` wrote."""
        return AuditQueries(**read_arrays(path))


@dataclass(frozen=True)
class AuditResult:
    """What the audit found.

    Attributes
    ----------
    queries : int
        Sampled rows with a usable embedding.
    queries_with_pairs : int
        Of these, rows with at least one true pair at or above the threshold.
    all_united : int
        Of these, rows that share a cluster with every one of their true pairs.
    all_united_share, all_united_low, all_united_high : float or None
        The share, and its Clopper-Pearson 95 % interval; None without queries with pairs.
    true_pairs, united_pairs : int
        Pairs of a query and any row; at most 10,000 per query are looked at, those of smallest
        hash.
    pair_recall, pair_recall_low, pair_recall_high : float or None
        united_pairs / true_pairs, and a 95 % bootstrap interval over query rows.
    """

    queries: int
    queries_with_pairs: int
    all_united: int
    all_united_share: float | None
    all_united_low: float | None
    all_united_high: float | None
    true_pairs: int
    united_pairs: int
    pair_recall: float | None
    pair_recall_low: float | None
    pair_recall_high: float | None

    def to_dict(self) -> dict[str, int | float | None]:
        """Return the fields, for JSON."""
        return asdict(self)


def sample_queries(
    stored: PartRows, size: int, seed: int, purpose: int = AUDIT_PURPOSE
) -> AuditQueries:
    """Read a seeded sample of rows; unusable ones among them are left out.

    Parameters
    ----------
    stored : PartRows
        Of the data set.
    size : int
        Rows to draw; at most ``size * dim`` values are held.
    seed, purpose : int
        See `dask_dedup.vectors.sample`: samples of different purpose are independent.
    """
    row_ids = sample_row_ids(int(stored.starts[-1]), size, seed, purpose)
    rows = stored.gather(row_ids)
    usable = prepare_block(rows).reason == 0
    return AuditQueries(row_ids[usable], exact_rows(rows[usable]))


class AuditCollector:
    """Collects the true pairs of the queries from the blocks of one span.

    Parameters
    ----------
    queries : AuditQueries
    pca : PcaModel
    threshold : float
        Cosine from which on a pair is true.
    seed, per_query : int
        Which pairs are kept, and how many of a query: see `PairSample`.
    """

    def __init__(
        self,
        queries: AuditQueries,
        pca: PcaModel,
        threshold: float,
        seed: int,
        per_query: int = PAIRS_PER_QUERY,
    ) -> None:
        self.queries = queries
        self.threshold = np.float32(threshold)
        projection = pca.transform(prepare_block(queries.rows))
        self._projections = code_rows(pca.to_codes(projection).numpy())
        self._code_distance = pca.largest_code_distance(threshold)
        self._pairs = PairSample(seed, per_query)
        self.seconds = 0.0

    def add(self, block: Block, codes: torch.Tensor) -> None:
        """Compare one block, and the int8 codes of its rows, with all queries."""
        began = time.perf_counter()
        self._compare(block, codes)
        self.seconds += time.perf_counter() - began

    def write(self, path: AnyPath) -> None:
        """Write the pairs of the span: ``query``, ``row_id`` int64, ``similarity`` float32."""
        write_frame(path, self._pairs.frame())

    def _compare(self, block: Block, codes: torch.Tensor) -> None:
        projections = code_rows(codes.numpy(), block.vectors.reason == 0)
        for i, j in near_pairs(projections, self._projections, self._code_distance, upper=False):
            row_ids, query_ids = block.row_start + i, self.queries.row_ids[j]
            open_pairs = np.flatnonzero(
                (row_ids != query_ids) & self._pairs.wants(query_ids, row_ids)
            )
            touched, position = np.unique(i[open_pairs], return_inverse=True)
            stored_rows = exact_rows(np.ascontiguousarray(block.stored[touched]))
            similarity = cosine_pairs(stored_rows, self.queries.rows, position, j[open_pairs])
            true = similarity >= self.threshold
            found = open_pairs[true]
            self._pairs.add(query_ids[found], row_ids[found], similarity[true])


def score(
    queries: np.ndarray,
    pairs: pd.DataFrame,
    cluster_of: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> AuditResult:
    """Say how many of the true pairs are in one cluster.

    Parameters
    ----------
    queries : int64 array
        ``row_id`` of the queries.
    pairs : DataFrame
        ``query``, ``row_id``: true pairs.
    cluster_of : callable
        Returns the clusters (int64) of some ``row_id`` (int64).
    seed : int
        Of the bootstrap.
    """
    united = cluster_of(pairs["query"].to_numpy()) == cluster_of(pairs["row_id"].to_numpy())
    per_query = pd.DataFrame({"query": pairs["query"], "united": united}).groupby("query")
    counts = per_query["united"].agg(["size", "sum"]).to_numpy().astype(np.int64)
    with_pairs, all_united = len(counts), int((counts[:, 0] == counts[:, 1]).sum())
    true_pairs, united_pairs = (int(total) for total in counts.sum(axis=0))
    if not with_pairs:
        return AuditResult(len(queries), 0, 0, None, None, None, 0, 0, None, None, None)
    low, high = _clopper_pearson(all_united, with_pairs)
    draws = np.random.default_rng(seed).integers(0, with_pairs, (_BOOTSTRAP, with_pairs))
    totals = counts[draws].sum(axis=1)
    recall_low, recall_high = np.quantile(totals[:, 1] / totals[:, 0], [0.025, 0.975])
    return AuditResult(
        queries=len(queries),
        queries_with_pairs=with_pairs,
        all_united=all_united,
        all_united_share=all_united / with_pairs,
        all_united_low=low,
        all_united_high=high,
        true_pairs=true_pairs,
        united_pairs=united_pairs,
        pair_recall=united_pairs / true_pairs,
        pair_recall_low=float(recall_low),
        pair_recall_high=float(recall_high),
    )


def _clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv  # a fifth of a second that every worker would wait for

    low = betaincinv(successes, trials - successes + 1, 0.025) if successes else 0.0
    high = betaincinv(successes + 1, trials - successes, 0.975) if successes < trials else 1.0
    return float(low), float(high)
