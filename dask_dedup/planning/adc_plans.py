"""What each stage of the finder adc will cost, from what faiss says of the index.

N rows of ``dim`` values in S spans; L lists, of which p are looked into; codes of m bytes; n rows
to train on. Measured on one core of an AMD EPYC with ``PCA64,IVF2048,PQ16``.
"""

from __future__ import annotations

from math import ceil

from dask_dedup.ivf.sizes import (
    BLOCK_ROWS,
    CALIBRATION_K,
    LEAST_SHARD_ROWS,
    READ_BYTES,
    RESULTS,
    SHARD_BYTES,
)
from dask_dedup.planning.index_work import IndexWork
from dask_dedup.planning.stage_cost import (
    EDGE_BYTES,
    SMALLER_PARTS,
    Cost,
    cost_of,
    single_bytes,
    waves,
)
from dask_dedup.planning.workload import Machine, Rates, Workload

__all__ = ["count_shards", "plan_search", "plan_shards", "plan_tolerance", "plan_train"]

CODE_CENTROIDS, CODE_ITERATIONS = 256, 25  # of a byte of a code, as faiss trains them
LIST_FLOPS = 23e9  # of distances to the lists' centroids, in faiss
CODE_FLOPS = 14e9  # of the training of codes, and of encoding
SCANNED_BYTES = 1.5e9  # of codes compared, a second
TABLE_SECONDS = 2.2e-6  # of a query's distances to the centroids of the codes, a list and shard
SATURATED = 1.4  # rows of which all neighbours pass are searched again (3 * 10^5 rows)
AUDIT_DIM = 64  # of the filter with which the truth of samples is found
SHARD_GROWTH = 2.0  # lists double as they fill, and are written beside that
SAMPLE_COPIES = 3  # as it arrives, in one array, behind the index's transforms


def plan_train(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the training of the empty index: one task, on the sample.

    - singly read rows: n, and those of the audit and of the calibration; hashes: N a sample
    - lists: iterations 2 L n d; codes: 25 iterations of 2 256 n d, at another rate
    - memory: the sample three times, or that of the audit's PCA
    """
    index = _index_of(work)
    n, d = index.sample_rows, index.searched_dim
    queries = min(work.rows, work.queries + index.calibration_queries)
    s = min(work.rows, work.sample_rows) * (queries > 0)
    list_flops = 2.0 * n * d * index.lists * index.iterations
    code_flops = 2.0 * n * d * CODE_CENTROIDS * CODE_ITERATIONS
    pca_flops = 2.0 * (s + n) * work.dim**2
    singles = n + s + queries
    seconds = (
        4 * work.rows / rates.hashed_rows
        + (list_flops / LIST_FLOPS + code_flops / CODE_FLOPS) / (machine.workers * machine.threads)
        + pca_flops / rates.projection_flops
        + (2 * work.spans + 2) * rates.task_seconds
    )
    reading = singles / rates.single_reads + (n + s) * work.dim / rates.prepared_values
    return cost_of(
        machine,
        tasks=2 * work.spans + 3,
        flops=list_flops + code_flops + pca_flops,
        read=single_bytes(work, singles),
        written=index.base_bytes + 4.0 * work.dim * (AUDIT_DIM + queries),
        seconds=seconds + reading / min(machine.workers, work.spans),
        memory=max(SAMPLE_COPIES * 4.0 * n * index.dim, 28.0 * s * work.dim),
        advice="The sample is held in one task: give each worker more with --memory and fewer "
        "--workers, or set a smaller adc.sample_rows.",
    )


def count_shards(work: Workload) -> int:
    """Return the number of shards, as `dask_dedup.ivf.shards.group_spans` cuts them."""
    index = _index_of(work)
    room = SHARD_BYTES // index.bytes_per_row
    limit = max(1, min(room, max(LEAST_SHARD_ROWS, work.rows // 16)))
    spans = max(1, int(limit // (work.rows / work.spans)))  # of a shard: a span is not cut
    return ceil(work.spans / spans)


def plan_shards(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the shards: every row is read, put into its list, encoded, and audited.

    - flops per row: 2 d L for its list, 2 d 256 for its code, and the index's transforms; for the
      truth of the samples 2 dim 64 and, of integers, 2 (64 + 4) queries
    - memory: a shard and what it grows by, the base index, a block of rows
    """
    index, tasks = _index_of(work), count_shards(work)
    queries = work.queries + index.calibration_queries
    list_flops = 2.0 * index.searched_dim * index.lists
    code_flops = 2.0 * index.searched_dim * CODE_CENTROIDS
    transforms = 2.0 * work.dim * index.searched_dim * (index.dim != index.searched_dim)
    transforms += 2.0 * work.dim * AUDIT_DIM * (queries > 0)
    audit = 2.0 * (AUDIT_DIM + 4) * queries
    read = float(work.rows * work.row_bytes)
    written = work.rows * index.bytes_per_row + float(tasks * index.base_bytes)
    row_seconds = (
        list_flops / LIST_FLOPS
        + transforms / rates.projection_flops
        + code_flops / CODE_FLOPS
        + audit / rates.filter_ops
        + queries / rates.scanned
        + work.dim / rates.prepared_values
    )
    core_seconds = (
        work.rows * row_seconds
        + read / rates.read_bytes
        + written / rates.write_bytes
        + tasks * rates.task_seconds
        + work.parts * rates.open_seconds
    )
    shard = max(work.rows / tasks, 1) * index.bytes_per_row
    block = BLOCK_ROWS * (work.dim * (work.item_bytes + 4) + 4 * index.dim)
    return cost_of(
        machine,
        tasks=tasks,
        flops=work.rows * (list_flops + code_flops + transforms + audit),
        read=read,
        written=written,
        seconds=waves(core_seconds, tasks, machine),
        memory=SHARD_GROWTH * shard + 2 * index.base_bytes + block + 17 * work.rows / work.spans,
        advice=SMALLER_PARTS,
    )


def _search_seconds(work: Workload, rates: Rates) -> float:
    """Return the time of one row's search, in all shards."""
    index = _index_of(work)
    code = max(index.bytes_per_row - 8, 1)
    return SATURATED * (
        2.0 * index.searched_dim * max(index.lists, 1) / LIST_FLOPS
        + index.compared(work.rows) * code / SCANNED_BYTES
        + index.lists_looked_into * count_shards(work) * TABLE_SECONDS
    )


def plan_tolerance(work: Workload, machine: Machine, rates: Rates) -> Cost | None:
    """Plan the calibration: one task searches the sample of known truth."""
    index = _index_of(work)
    queries = min(work.rows, index.calibration_queries)
    if not queries:
        return None
    shards = work.rows * index.bytes_per_row
    read = min(shards, queries * index.compared(work.rows) * index.bytes_per_row)
    results = queries * min(CALIBRATION_K, work.rows)
    return cost_of(
        machine,
        tasks=1,
        flops=2.0 * index.searched_dim * max(index.lists, 1) * queries,
        read=read,
        seconds=queries * _search_seconds(work, rates)
        + results / rates.sorted_keys
        + (work.spans + count_shards(work)) * rates.open_seconds,
        memory=3 * 24.0 * results + 8.0 * work.rows * work.duplicates,
        advice="It holds the ids of all rows that repeat another one: give each worker more with "
        "--memory and fewer --workers.",
    )


def plan_search(work: Workload, machine: Machine, rates: Rates) -> Cost:
    """Plan the search: a task a span, whose rows look into all shards.

    - codes compared per row: N p / L, and a query's tables for each list and shard
    - pairs that pass are verified at full dimension: ``pairs_per_row`` a row
    - memory: the results of a search, a batch of full rows; shards are mapped, and not counted
    """
    index = _index_of(work)
    pairs = work.rows * work.pairs_per_row * index.is_verified
    singles = min(2 * pairs, work.rows * min(1.0, 3 * work.duplicates)) * index.is_verified
    shards = work.rows * index.bytes_per_row
    read = work.rows * work.row_bytes + shards * min(work.spans, machine.workers)
    written = work.found_edges * EDGE_BYTES
    core_seconds = (
        work.rows * _search_seconds(work, rates)
        + work.rows * work.dim / rates.prepared_values
        + work.rows * work.row_bytes / rates.read_bytes
        + pairs / rates.sorted_keys
        + pairs * work.dim / rates.verified_values
        + singles / rates.single_reads
        + written / rates.write_bytes
        + work.spans * (rates.task_seconds + count_shards(work) * rates.open_seconds)
    )
    rows = work.rows / work.spans
    batch = min(READ_BYTES, 8.0 * work.dim * 2 * rows * work.pairs_per_row) * index.is_verified
    return cost_of(
        machine,
        tasks=work.spans,
        flops=work.rows * 2.0 * index.searched_dim * max(index.lists, 1),
        read=read + single_bytes(work, singles),
        written=written,
        seconds=waves(core_seconds, work.spans, machine),
        memory=2 * batch
        + 3 * 12.0 * min(RESULTS, BLOCK_ROWS * index.k)
        + BLOCK_ROWS * (work.dim * (work.item_bytes + 4) + 4 * index.dim)
        + index.base_bytes
        + EDGE_BYTES * 3 * work.found_edges / work.spans,
        advice=SMALLER_PARTS,
    )


def _index_of(work: Workload) -> IndexWork:
    assert work.index is not None, "a plan of the finder adc for another finder"
    return work.index
