"""Plans of the stages of ``[keep]``, by hand."""

from dataclasses import replace

from dask_dedup.planning.cost_model import plan
from dask_dedup.planning.stage_cost import PROCESS_BYTES
from dask_dedup.planning.workload import Machine, Workload

SMALL = Workload(
    rows=1000,
    dim=11,
    parts=5,
    cells=49,
    duplicates=0.2,
    metadata_bytes=17.0,
    is_ranked=True,
    is_settled=True,
    has_decisions=True,
    ordering_columns_bytes=7.0,
    merged_bytes=3.0,
)


def stages(work=SMALL, workers=2):
    return {stage.name: stage for stage in plan(work, Machine(workers)).stages}


def test_decide_reads_the_metadata_once():
    found = stages()["decide"]
    assert (found.bytes_read, found.bytes_written, found.tasks) == (1000 * 17, 0, 1)
    assert found.memory_bytes == 2 * 200 * 17 + PROCESS_BYTES


def test_values_and_ranks_are_of_the_rows_in_clusters():
    found = stages()
    # 200 duplicates, 300 rows with a label of 10 bytes; 12 bytes of role and key, or of a rank
    assert found["values"].bytes_read == 300 * 10 + 1000 * 7
    assert found["values"].bytes_written == found["rank"].bytes_read == 300 * 22
    assert found["rank"].bytes_written == 300 * 12
    assert found["rank"].memory_bytes == 200 * 300 + PROCESS_BYTES


def test_medoids_read_every_row_in_a_cluster():
    by_medoid = stages(replace(SMALL, by_medoid=True))["rank"]
    assert by_medoid.bytes_read == stages()["rank"].bytes_read + 300 * 4096
    assert by_medoid.memory_bytes > stages()["rank"].memory_bytes


def test_settling_reads_every_row_in_a_cluster_once_more():
    found = stages()
    assert found["place"].bytes_written == 300 * 22
    assert found["settle"].bytes_read == 300 * 22 + 300 * 4096
    assert found["settle"].bytes_written == 200 * 20


def test_carried_values_are_written_and_join_the_clusters():
    found = stages()
    assert found["carry"].bytes_read == 1000 * 3 + 2 * 300 * 10
    assert found["carry"].bytes_written == 200 * (3 + 12)
    plain = stages(replace(SMALL, merged_bytes=0.0))["clusters"]
    assert found["clusters"].bytes_read - plain.bytes_read == 200 * 3
    assert found["clusters"].result_bytes - plain.result_bytes == 200 * 3


def test_buckets_of_many_clusters_are_tasks_of_bounded_memory():
    large = stages(replace(SMALL, rows=10**9, parts=1000))
    assert large["rank"].tasks == large["settle"].tasks == 200  # of 10^6 edges
    assert large["rank"].memory_bytes == 200 * 1.5e6 + PROCESS_BYTES


def test_keep_costs_little_beside_the_run():
    work = Workload(rows=10**7, dim=512, parts=10, cells=11_604, cells_per_row=6.4, duplicates=0.26)
    ordered = replace(work, is_ranked=True, ordering_columns_bytes=50.0)
    plain, kept = plan(work, Machine(2)), plan(ordered, Machine(2))
    # measured: about 1.5 % of a run, whose metadata is 30 bytes a row
    assert 1.0 < kept.seconds / plain.seconds < 1.1
