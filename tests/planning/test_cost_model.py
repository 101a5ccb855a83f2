"""The plan: formulas by hand arithmetic, against a real layout, refusals, and the command."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise

import dask
import pytest
from click.testing import CliRunner

from dask_dedup import Settings, build_cells, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.errors import CapacityError, SettingsError
from dask_dedup.planning.core_rates import measure_rates
from dask_dedup.planning.cost_model import describe, plan, refuse
from dask_dedup.planning.join_plans import count_groups
from dask_dedup.planning.stage_cost import PROCESS_BYTES
from dask_dedup.planning.workload import (
    Machine,
    Rates,
    Workload,
    load_rates,
    numbers_workload,
    save_rates,
)
from dask_dedup.settings.run_settings import load_settings
from dask_dedup.vectors.fit_pca import fit_pca

SMALL = Workload(
    rows=1000,
    dim=11,
    parts=5,
    cells=49,
    kept=6,
    cells_per_row=3.0,
    probes=2.0,
    sample_rows=500,
    sample_per_cell=2,
    queries=13,
    duplicates=0.2,
    pairs_per_row=7.0,
    metadata_bytes=17.0,
)
LARGE = Workload(rows=2_100_000_000, dim=768, parts=2100, cells=819_941)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Keep this machine's own rates out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stages(work=SMALL, workers=2, **machine):
    return {stage.name: stage for stage in plan(work, Machine(workers, **machine)).stages}


def invoke(*arguments: object):
    return CliRunner().invoke(
        cli.main, ["plan", *map(str, arguments)], catch_exceptions=False, terminal_width=200
    )


# --- formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kept", "expected"), [(64, 76), (6, 16), (7, 16), (8, 20)])
def test_entry_bytes_are_filled_up_to_words(kept, expected):
    assert replace(SMALL, kept=kept).entry_bytes == expected


def test_layout_by_hand():
    found = stages()["layout"]
    # projection 2*11*6, scores 2*6*(7 + 2*7), audit 2*(6 + 4)*13
    assert found.flops == 1000 * (132 + 252 + 260)
    assert found.bytes_read == 1000 * 11 * 2
    # 1,000 rows in five parts are one span
    assert found.bytes_written == 3 * 1000 * 16 + 1 * 8 * 50
    assert found.tasks == 1
    assert stages(replace(SMALL, rows=7 * 6000, parts=7))["layout"].tasks == 7
    # 21 parts of 2,000: one each below 2,048 rows; 420 of 100: 20 together
    assert stages(replace(SMALL, rows=42_000, parts=21))["layout"].tasks == 21
    assert stages(replace(SMALL, rows=42_000, parts=420))["layout"].tasks == 21


def test_merge_by_hand():
    assert "merge" not in stages(replace(LARGE, parts=64, rows=64 * 10**6))
    few = stages(replace(LARGE, parts=67, rows=67 * 10**6))["merge"]
    assert few.tasks == 3  # pairs
    entries, offsets = 67 * 10**6 * 5 * 76, 67 * 8 * (819_941 + 1)
    assert few.bytes_read == few.bytes_written == pytest.approx((entries + offsets) * 6 / 67)
    many = stages(LARGE)["merge"]
    assert many.tasks == 64
    assert many.bytes_read == pytest.approx(2.1e9 * 5 * 76 + 2100 * 8 * 819_942)
    twice = stages(replace(LARGE, parts=6400, rows=6400 * 300_000))
    # 6,400 to 100, then 36 pairs of these
    assert (twice["merge"].tasks, twice["merge-2"].tasks) == (100, 36)
    assert "merge-3" not in twice
    size = 1.92e9 * 5 * 76 + 6400 * 8 * 819_942
    assert twice["merge"].bytes_written == pytest.approx(size)
    assert twice["merge-2"].bytes_written == pytest.approx(size * 0.72)


def test_fit_by_hand():
    found = stages()["fit"]
    pca, projections = 2 * 500 * 121 + 10 * 1331, 2 * 1000 * 11 * 6
    coarse = 2 * 6 * 7 * (10 * 1000 + 1000)
    fine = 1000 * (1000 / 7) * 8 + 2 * 6 * 1000 * 7 * 10
    assert found.flops == pytest.approx(pca + projections + coarse + fine)
    assert found.bytes_read == (500 + 1000 + 13 + 1000) * 4096  # a page for each row
    assert found.memory_bytes == 28 * 500 * 11 + PROCESS_BYTES


def test_join_by_hand():
    found = stages()["join"]
    pairs = 3000 * (3000 / 49) * 1.28 / 2
    assert found.flops == pytest.approx(pairs * 2 * 10)
    assert found.bytes_read == pytest.approx(
        3000 * 16 + 2 * 1 * 8 * 50 + 3000 * 0.75 / 3 * 4096, rel=1e-6
    )
    assert found.bytes_written == pytest.approx(1000 * 0.2 * 1.5 * 20)


def test_forest_and_clusters_by_hand():
    found = stages()
    assert found["forest"].memory_bytes == 4 * 1000 + 48 * 300 + PROCESS_BYTES
    assert found["forest"].tasks == 1
    # 200 duplicates, 300 rows with a label; a tenth of the former are compared again
    assert found["labels"].bytes_read == 200 * 20
    assert found["compare"].bytes_read == 300 * 10 + 300 * 4096
    assert found["compare"].memory_bytes == 64 * 300 + 6 * 2**23 + PROCESS_BYTES
    assert found["groups"].memory_bytes == 100 * 20 + PROCESS_BYTES
    assert found["witnesses"].bytes_read == 20 * 8 + 20 * 4096
    assert found["witnesses"].flops == 2 * 11 * 1024 * 20
    assert [found[name].tasks for name in ("labels", "compare", "groups", "witnesses")] == [1] * 4
    assert found["clusters"].bytes_read == 1000 * 17 + 300 * 10
    assert found["clusters"].tasks == 1
    # a part: 200 rows; 300 labelled ones in the span
    assert found["clusters"].memory_bytes == 200 * (4 * 17 + 64) + 64 * 300 + PROCESS_BYTES
    wide = stages(replace(SMALL, rows=5 * 10**9))
    assert wide["forest"].memory_bytes == 8 * 5e9 + 64 * 2**25 + PROCESS_BYTES
    assert wide["labels"].memory_bytes > 2 * 8 * 5e9  # the labels of all rows: two arrays


def test_groups_by_hand_and_at_most_one_per_cell():
    assert count_groups(SMALL) == 1
    assert (
        count_groups(Workload(rows=1_000_000, dim=3, parts=1, cells=8192, cells_per_row=6.0)) == 64
    )
    assert count_groups(LARGE) == 40055  # 10.5e9 entries, 2^18 a task
    assert count_groups(Workload(rows=10**6, dim=3, parts=1, cells=50)) == 50


def test_few_cells_limit_cells_per_row_and_scores():
    work = replace(SMALL, cells=2, cells_per_row=6.0)
    assert (work.effective_cells_per_row, work.scored) == (2, 2)


# --- behaviour ------------------------------------------------------------------------------------


def test_everything_grows_with_the_rows():
    plans = []
    for rows in (10**5, 10**6, 10**7, 10**8, 10**9):
        work = numbers_workload(Settings(), rows=rows, dim=512, dtype="float16", parts=100)
        plans.append(plan(work, Machine(8)))
    for few, many in pairwise(plans):
        assert few.working_bytes < many.working_bytes
        before = {stage.name: stage for stage in few.stages}
        for a, b in [(before[stage.name], stage) for stage in many.stages if stage.name in before]:
            assert a.seconds <= b.seconds, a.name  # the same where there are more tasks than before
            assert a.bytes_read < b.bytes_read, a.name
            assert a.memory_bytes <= b.memory_bytes, a.name


def test_twice_the_workers_halve_the_parallel_stages_and_not_the_others():
    work = replace(LARGE, parts=2048)
    one, two = stages(work, 8), stages(work, 16)
    assert one["layout"].seconds == pytest.approx(2 * two["layout"].seconds)
    assert one["join"].seconds == pytest.approx(2 * two["join"].seconds, rel=0.02)
    assert two["fit"].seconds > 0.5 * one["fit"].seconds
    assert two["forest"].seconds > 0.5 * one["forest"].seconds


def test_more_workers_than_parts_do_not_help_the_layout():
    work = replace(SMALL, rows=50_000)
    assert stages(work, 5)["layout"].seconds == stages(work, 50)["layout"].seconds


def test_the_disk_bounds_a_stage_from_below():
    slow = stages(LARGE, 640, disk_bytes=1e9)["layout"]
    assert slow.seconds == pytest.approx((slow.bytes_read + slow.bytes_written) / 1e9)


def test_measured_run_is_met_within_a_third():
    work = Workload(
        rows=10**6,
        dim=512,
        parts=10,
        cells=2500,
        cells_per_row=4.5,
        duplicates=0.26,
        metadata_bytes=30,
        has_page=False,
    )
    planned = plan(work, Machine(2))
    measured = 14.9  # the whole command on two cores, 2026-11: examples/benchmarks/RESULTS.md
    assert planned.seconds == pytest.approx(measured, rel=0.33)


def test_working_bytes_are_those_of_a_real_layout(clipart, tmp_path):
    data = read_dataset(clipart)
    with dask.config.set(scheduler="synchronous"):
        made = build_cells(data, fit_pca(data), tmp_path / "layout")
    written = sum(path.stat().st_size for path in (tmp_path / "layout").iterdir())
    settings = load_settings(overrides={"audit.queries": 0})
    work = numbers_workload(settings, rows=data.rows, dim=data.dim, dtype="float16", parts=5)
    planned = plan(work, Machine(1))
    fit, laid, *_ = planned.stages
    assert fit.bytes_written + laid.bytes_written == pytest.approx(written, rel=0.25)
    assert made.cells == pytest.approx(work.cells, abs=2)
    assert planned.working_bytes > fit.bytes_written + laid.bytes_written


def test_refuse_says_stage_need_has_and_cure():
    planned = plan(LARGE, Machine(64))
    refuse(planned, 100e9)
    with pytest.raises(CapacityError) as caught:
        refuse(planned, 8e9)
    assert str(caught.value) == (
        "labels: a task needs 17.1 GB, a worker has 8.0 GB. One task holds two arrays over all "
        "rows: give each worker more with --memory and fewer --workers."
    )


def test_describe_is_plain_json():
    report = json.loads(json.dumps(describe(plan(SMALL, Machine(2)))))
    assert report["workload"]["rows"] == 1000
    assert [stage["name"] for stage in report["stages"]] == [
        "fit",
        "layout",
        "join",
        "forest",
        "labels",
        "compare",
        "groups",
        "witnesses",
        "clusters",
        "report",
    ]
    assert report["seconds"] == pytest.approx(
        6 + sum(stage["seconds"] for stage in report["stages"])
    )


# --- rates ----------------------------------------------------------------------------------------


def test_measured_rates_are_positive_and_survive_a_round_trip(tmp_path):
    rates = measure_rates(tmp_path, seconds=0.001, rows=256, dim=32)
    assert all(value > 0 for value in asdict(rates).values())
    assert list(tmp_path.iterdir()) == []  # what was written to measure is gone
    path = tmp_path / "some" / "rates.json"
    save_rates(rates, path)
    assert load_rates(path) == rates


def test_load_rates_without_a_file_is_none(tmp_path):
    assert load_rates(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "its names are not those"),
        ("3", "not iterable"),
        ('{"scanned": 1}', "its names are not those"),
        (json.dumps({**asdict(Rates()), "scanned": -1}), "a rate is not a positive number"),
        (json.dumps({**asdict(Rates()), "scanned": None}), "float"),
    ],
)
def test_load_rates_damaged_file_is_one_clear_error(tmp_path, content, reason):
    path = tmp_path / "rates.json"
    path.write_text(content)
    with pytest.raises(SettingsError, match=f"rates.json: not a file of rates .*{reason}"):
        load_rates(path)


# --- the command ----------------------------------------------------------------------------------


def test_command_on_numbers_prints_every_stage_and_which_rates():
    result = invoke("--rows", "2.1e9", "--dim", 768, "--nodes", 2, "--cores", 32)
    assert result.exit_code == 0, result.output
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["rows", "2,100,000,000", "dimension", "768"] in words
    assert ["workers", "64", "of", "1", "thread", "each"] in words
    shown = [line[0] for line in words if line]
    assert shown[-12:] == [
        *("fit", "layout", "merge", "join", "forest", "labels", "compare", "groups"),
        *("witnesses", "clusters", "report", "rates:"),
    ]
    assert "shipped; --calibrate measures this machine's" in result.stdout


def test_command_on_a_dataset_reads_its_headers(clipart):
    result = invoke(clipart, "--json", "--dim", 32, "--workers", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["workload"]["rows"], report["workload"]["dim"]) == (10248, 512)
    assert (report["workload"]["parts"], report["workload"]["kept"]) == (5, 32)
    assert report["machine"]["workers"] == 3
    assert report["workload"]["metadata_bytes"] == pytest.approx(607_697 / 10_248)


def test_command_calibrate_writes_rates_that_the_next_plan_uses(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert invoke("--calibrate", "--calibrate-seconds", 0.001, "--workers", 2).exit_code == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]
    path = tmp_path / "cache" / "dask_dedup" / "rates.json"
    assert load_rates(path) is not None
    result = invoke("--rows", 1e6, "--json")
    assert json.loads(result.stdout)["rates"] == f"measured, {path}"
    path.write_text("damaged")
    result = invoke("--rows", 1e6)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"dask-dedup: {path}: not a file of rates")


def test_command_prints_the_plan_and_refuses_what_cannot_fit():
    result = invoke("--rows", 2.1e9, "--memory", "8GB")
    assert result.exit_code == 2
    assert "working files" in result.stdout
    assert result.stderr.startswith("dask-dedup: labels: a task needs 17.1 GB, a worker has 8.0 GB")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "plan: expected either a DATASET or --rows."),
        (["here", "--rows", 5], "plan: expected either a DATASET or --rows."),
        (["no-such"], "no-such: no such folder or file."),
        (["--rows", 0], "rows: expected a number from 1 to inf, got 0.0."),
        (["--rows", "nan"], "rows: expected a number from 1 to inf, got nan."),
        (["--rows", 9, "--parts", 10], "parts: expected at most one per row, 9, got 10."),
        (["--rows", 9, "--dtype", "int8"], "dtype: expected float16, float32 or float64, got"),
        (["--rows", 9, "--duplicates", 1.5], "duplicates: expected a number from 0 to 1, got 1.5."),
        (["--rows", 9, "--nodes", 0], "nodes: expected at least 1, got 0."),
        (["--rows", 9, "--disk-rate", "fast"], "disk-rate: expected bytes a second such as 2GB"),
        (
            ["--rows", 9, "--cells-per-row", 0],
            "--cells-per-row: Input should be greater than or equal",
        ),
    ],
)
def test_command_bad_input_is_one_message_and_exit_2(arguments, message):
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
