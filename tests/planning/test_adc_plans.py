"""Plans of the finder adc: what faiss says of the index, hand arithmetic, and real shards."""

import json
from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup import load_settings, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.errors import SettingsError
from dask_dedup.planning.adc_plans import count_shards
from dask_dedup.planning.cost_model import plan
from dask_dedup.planning.index_work import IndexWork, index_work
from dask_dedup.planning.preflight import describe_dataset, plan_run
from dask_dedup.planning.scaled_plan import read_run
from dask_dedup.planning.stage_cost import PROCESS_BYTES
from dask_dedup.planning.workload import Machine, Workload
from dask_dedup.runtime.executor import compute_tasks

INDEX = IndexWork(dim=11, searched_dim=6, lists=7, bytes_per_row=11, sample_rows=300, nprobe=3)
SMALL = Workload(
    rows=1000,
    dim=11,
    parts=5,
    cells=49,
    sample_rows=500,
    queries=13,
    duplicates=0.2,
    pairs_per_row=2.0,
    finder="adc",
    index=replace(INDEX, calibration_queries=17),
)


def stages(work=SMALL, workers=2):
    return {stage.name: stage for stage in plan(work, Machine(workers)).stages}


@pytest.mark.parametrize(
    ("rows", "factory", "expected"),
    [
        # searched_dim, lists, code and 8 bytes of id, rows to train on
        (10**6, None, (64, 4096, 24, 262_144)),
        (10**4, "IVF16,PQ8", (512, 16, 16, 10_000)),
        (5000, None, (512, 0, 520, 5000)),  # one byte a coordinate
        (10**6, "OPQ8_32,IVF256,PQ8x4fs", (32, 256, 12, 65_536)),
    ],
)
def test_index_work_is_what_faiss_says(rows, factory, expected):
    settings = load_settings(overrides={"finder": "adc", "adc.factory": factory})
    found = index_work(settings, rows, 512)
    assert found.dim == 512
    assert (
        found.searched_dim,
        found.lists,
        found.bytes_per_row,
        found.sample_rows,
    ) == expected


def test_index_work_of_a_name_that_faiss_refuses_is_a_settings_error():
    settings = load_settings(overrides={"finder": "adc", "adc.factory": "nonsense"})
    with pytest.raises(SettingsError, match="factory 'nonsense'"):
        index_work(settings, 1000, 8)


def test_train_by_hand():
    found = stages()["train"]
    lists, codes = 2 * 300 * 6 * 7 * 10, 2 * 300 * 6 * 256 * 25
    assert found.flops == lists + codes + 2 * (500 + 300) * 121
    assert found.bytes_read == (300 + 500 + 13 + 17) * 4096
    assert found.memory_bytes == 28 * 500 * 11 + PROCESS_BYTES  # of the audit's PCA


def test_shards_by_hand():
    found = stages()["shards"]
    # list 2*6*7, code 2*6*256, transforms 2*11*6 and 2*11*64, audit 2*(64 + 4)*30
    assert found.flops == 1000 * (84 + 3072 + 132 + 1408 + 4080)
    assert found.bytes_read == 1000 * 11 * 2
    # centroids of 7 lists and 256 codes; 11 axes of a PCA beside the 6 that are used
    assert found.bytes_written == 1000 * 11 + 4 * (6 * (7 + 256) + 11 * (11 + 6))
    assert found.result_bytes == 0


def test_search_by_hand():
    found = stages()["search"]
    assert found.flops == 1000 * 2 * 6 * 7
    # rows, codes, and rows of pairs singly: three for each duplicate at most
    assert found.bytes_read == pytest.approx(1000 * 22 + 1000 * 11 + 600 * 4096)
    assert found.bytes_written == 200 * 1.5 * 20
    unverified = replace(SMALL, index=replace(INDEX, is_verified=False))
    assert stages(unverified)["search"].bytes_read == 1000 * 22 + 1000 * 11


def test_tolerance_is_planned_where_it_is_calibrated():
    assert stages()["tolerance"].tasks == 1
    given = replace(SMALL, index=replace(INDEX, calibration_queries=0))
    assert "tolerance" not in stages(given)


def test_twice_the_rows_take_more_than_twice_the_search():
    """In as many lists each row is compared with twice as many."""
    large = replace(SMALL, rows=10**6, index=replace(INDEX, lists=1024))
    twice = replace(large, rows=2 * 10**6)
    assert stages(twice)["search"].seconds > 2.2 * stages(large)["search"].seconds


def test_measured_search_is_met_within_a_half():
    index = IndexWork(512, 64, 2048, 24, 131_072)
    work = Workload(
        rows=300_000,
        dim=512,
        parts=10,
        cells=1,
        duplicates=0.26,
        pairs_per_row=13.6,
        finder="adc",
        index=index,
    )
    # 3 * 10^5 synthetic rows: 115 us of a core a row, first calls left out
    assert stages(work, 1)["search"].seconds == pytest.approx(300_000 * 115e-6, rel=0.5)


def test_shards_of_a_real_run_are_those_of_the_plan(clipart, tmp_path):
    settings = load_settings(overrides={"finder": "adc", "audit.queries": 0})
    planned = plan_run(describe_dataset(read_dataset(clipart)), settings)
    summary = partial(dask_dedup.run, execute=compute_tasks)(
        clipart, tmp_path / "out", settings, keep_stages=True
    )
    found, folder = summary["found"], tmp_path / "out" / "stages" / "shards"
    assert count_shards(planned.workload) == found["shards"]
    index = planned.workload.index
    assert (index.lists, index.bytes_per_row) == (found["lists"], found["bytes_per_row"])
    written = {stage.name: stage.bytes_written for stage in planned.stages}
    shards = sum(path.stat().st_size for path in folder.glob("shard-*.faiss"))
    assert written["shards"] == pytest.approx(shards, rel=0.1)  # equal rows are left out
    run = read_run(tmp_path / "out")
    assert run.workload.pairs_per_row == found["candidates"] / 10_248
    assert {"train", "shards", "tolerance", "search"} <= set(run.seconds)


def test_command_plans_the_finder_adc():
    done = CliRunner().invoke(
        cli.main,
        ["plan", "--rows", "1e6", "--dim", "512", "--set", "finder=adc", "--json"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    names = [stage["name"] for stage in report["stages"]]
    assert names[:5] == ["train", "shards", "tolerance", "search", "forest"]
    assert report["workload"]["index"]["lists"] == 4096


def test_command_names_the_lists_of_the_index_and_no_cells():
    arguments = ["plan", "--rows", "1e6", "--dim", "512", "--set", "finder=adc"]
    done = CliRunner().invoke(cli.main, arguments, catch_exceptions=False, terminal_width=200)
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["lists", "4,096", "each", "row", "looks", "into", "8"] in words
    assert "cells" not in done.stdout
