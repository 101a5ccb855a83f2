"""What commands share: workers that start with the first tasks, and the end by a signal."""

from __future__ import annotations

import subprocess
import sys

import pytest
from dask import delayed

from dask_dedup.cli.command_workers import lazy_workers
from dask_dedup.errors import CapacityError
from dask_dedup.settings.run_settings import load_settings


def test_lazy_workers_are_not_asked_for_before_there_is_a_task(tmp_path):
    too_small = load_settings(None, {"compute.memory": "1MB"})
    with lazy_workers(too_small, tmp_path / "out", tmp_path / "out" / "stages") as execute:
        assert execute([], print) == []
        with pytest.raises(CapacityError, match="memory"):
            execute([delayed(int)(1)], print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stop", "code", "line"),
    [
        ("KeyboardInterrupt", 130, "interrupted; the same command continues where this stopped"),
        ("Terminated", 143, "terminated; the same command continues where this stopped"),
    ],
)
def test_interruptible_ends_the_process_with_the_code_of_the_signal(stop, code, line):
    script = (
        "from rich.console import Console\n"
        "from dask_dedup.cli.command_workers import interruptible\n"
        "from dask_dedup.cli.terminal import Terminated\n"
        "with interruptible(Console(stderr=True)):\n"
        f"    raise {stop}\n"
        "print('went on')\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr.strip()) == (code, "", line)
