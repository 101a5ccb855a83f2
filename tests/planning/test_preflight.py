"""The plan that a run prints, and what is refused by it."""

import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from dask_dedup import Settings, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.errors import CapacityError
from dask_dedup.planning.preflight import check_fits, check_machine, describe_dataset, plan_run


def test_plan_run_is_of_the_data_set_and_the_settings(clipart):
    settings = Settings.model_validate({"compute": {"workers": 3}, "cells": {"cells": 7}})
    planned = plan_run(describe_dataset(read_dataset(clipart)), settings)
    assert (planned.workload.rows, planned.workload.parts) == (10_248, 5)
    assert (planned.workload.cells, planned.machine.workers) == (7, 3)


def test_check_room_refuses_what_the_disk_does_not_hold(clipart, tmp_path):
    data = read_dataset(clipart)
    planned = plan_run(describe_dataset(data), Settings())
    free = check_fits(planned, data, Settings(), tmp_path / "not" / "there")
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    stages = (*planned.stages[:1], replace(planned.stages[1], bytes_written=1e18))
    large = replace(planned, stages=(*stages, *planned.stages[2:]))
    with pytest.raises(CapacityError, match=r"needs 1,000,000.0 TB on this disk, .* are free"):
        check_fits(large, data, Settings(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_run_refuses_workers_that_are_too_small_before_it_begins(clipart, tmp_path):
    out = tmp_path / "out"
    command = ["run", str(clipart), str(out), "--workers", "1", "--memory", "400MB"]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 2
    assert "a worker has 400.0 MB" in result.stderr
    assert not out.exists()


def test_check_machine_counts_command_libraries_and_a_task_in_every_worker(clipart):
    settings = Settings.model_validate({"compute": {"workers": 3}})
    planned = plan_run(describe_dataset(read_dataset(clipart)), settings)
    tasks = round(planned.memory_bytes) - 300_000_000  # libraries left out
    needed = 320_000_000 + 300_000_000 + 3 * (tasks + 50_000_000)
    check_machine(planned, needed + 3)  # rounded in three places
    with pytest.raises(CapacityError, match=r"3 workers may need 1\.[0-9] GB together: 320\.0 MB"):
        check_machine(planned, needed - 3)
