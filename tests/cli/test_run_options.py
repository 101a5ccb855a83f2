"""The options of `run`: help, settings, logging; without a run."""

from __future__ import annotations

import io
import logging
import operator
import re
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import dask_dedup
from dask_dedup import Settings
from dask_dedup.cli import commands as cli
from dask_dedup.cli.group import chosen_settings, configure_logging
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.settings.option_names import OPTIONS, settings_from

run_here = partial(dask_dedup.run, execute=compute_tasks)

COMMAND = [sys.executable, "-m", "dask_dedup"]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=200
    )


@pytest.fixture
def tiny(tmp_path, write_dataset) -> Path:
    return write_dataset(tmp_path / "data", [np.eye(3, 5, dtype=np.float32)])


def test_help_names_every_option_and_its_default():
    result = CliRunner().invoke(cli.main, ["run", "--help"], terminal_width=200)
    assert result.exit_code == 0
    for option in ("--threshold", "--memory", "--work", "--cluster", "--break-lock"):
        assert option in result.output
    for text in ("[default: 0.95]", "[default: one per core]", "130 interrupted", "-h, --help"):
        assert text in result.output
    assert "[default: 4.5, above a million rows more" in " ".join(result.output.split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_of_the_group_names_the_command(arguments):
    result = CliRunner().invoke(cli.main, arguments)
    assert "run find the duplicates of a data set" in " ".join(result.output.split())


def test_version_is_that_of_the_package_by_the_real_command():
    done = command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"dask-dedup, version {version('dask_dedup')}\n"


def asked(data: Path, *arguments: str) -> SimpleNamespace:
    """Return what the command would run with: its own parser, and its own reading of settings."""
    given = cli.main.commands["run"].make_context("run", [str(data), "out", *arguments]).params
    names = ("dataset", "out", "config", "overwrite", "break_lock", "keep_stages", "verbose")
    own = {name: given.pop(name) for name in (*names, "quiet")}
    settings = chosen_settings(given, own["config"])
    flags = own["overwrite"], own["break_lock"], own["keep_stages"]
    return SimpleNamespace(**{**own, "settings": settings, "flags": flags})


def test_options_none_given_run_with_the_defaults(tiny):
    received = asked(tiny)
    assert received.settings == Settings()
    assert (received.dataset, received.out) == (tiny, Path("out"))
    assert received.flags == (False, False, False)


@pytest.mark.parametrize(
    ("option", "value", "key", "expected"),
    [
        ("--threshold", "0.7", "clusters.threshold", 0.7),
        ("--search-threshold", "0.6", "join.search_threshold", 0.6),
        ("--cells-per-row", "3.5", "cells.cells_per_row", 3.5),
        ("--cells", "17", "cells.cells", 17),
        ("--dim", "32", "projection.dim", 32),
        ("--finder", "adc", "finder", "adc"),
        ("--model", "m", "adc.model", "m"),
        ("--factory", "SQ8", "adc.factory", "SQ8"),
        ("--nprobe", "5", "adc.nprobe", 5),
        ("--k", "9", "adc.k", 9),
        ("--tolerance", "1.5", "adc.tolerance", 1.5),
        ("--url-column", "link", "read.url_column", "link"),
        ("--caption-column", "alt", "read.caption_column", "alt"),
        ("--audit-queries", "0", "audit.queries", 0),
        ("--seed", "0", "seed", 0),
        ("--workers", "3", "compute.workers", 3),
        ("--threads", "2", "compute.threads", 2),
        ("--memory", "2GiB", "compute.memory", 2 * 1024**3),
    ],
)
def test_options_each_sets_its_setting_and_wins_over_the_file(
    tiny, tmp_path, option, value, key, expected
):
    config = tmp_path / "a.toml"
    config.write_text(
        "seed = 5\n[clusters]\nthreshold = 0.9\n[cells]\ncells_per_row = 2.0\n"
        "[audit]\nqueries = 7\n"
    )
    received = asked(tiny, "--config", str(config), option, value)
    cells = {"cells.cells_per_row": 2.0}
    from_file = {"seed": 5, "clusters.threshold": 0.9, **cells, "audit.queries": 7}
    for name, wanted in {**from_file, key: expected}.items():
        assert operator.attrgetter(name)(received.settings) == wanted


def test_options_verify_or_not_is_one_setting(tiny):
    for arguments, expected in (([], True), (["--verify"], True), (["--no-verify"], False)):
        assert asked(tiny, *arguments).settings.adc.verify is expected


def test_options_flags_are_passed_on(tiny):
    assert asked(tiny, "--overwrite").flags == (True, False, False)
    assert asked(tiny, "--break-lock").flags == (False, True, False)
    assert asked(tiny, "--keep-stages").flags == (False, False, True)


def test_options_are_the_keywords_of_python(tiny):
    """Every keyword is an option of a command, and sets the same."""
    flags = {
        option
        for command in cli.main.commands.values()
        for param in command.params
        for option in param.opts
    }
    assert {f"--{name.replace('_', '-')}" for name in OPTIONS} <= flags
    of_run = {param.name: param.opts[0] for param in cli.main.commands["run"].params}
    for name, key in OPTIONS.items():
        if key.replace(".", "__") in of_run:
            assert of_run[key.replace(".", "__")] == f"--{name.replace('_', '-')}"
    assert asked(tiny, "--threshold", "0.7", "--cells", "3", "--skip-bad-parts").settings == (
        settings_from(None, {"threshold": 0.7, "cells": 3, "skip_bad_parts": True})
    )


@pytest.mark.parametrize(
    ("arguments", "details", "warnings"), [([], 0, 1), (["-v"], 1, 1), (["-q"], 0, 0)]
)
def test_log_level_follows_verbose_and_quiet_and_lines_stay_whole(
    tiny, arguments, details, warnings
):
    shown = io.StringIO()
    received = asked(tiny, *arguments)
    configure_logging(Console(file=shown, width=80), received.verbose, received.quiet)
    logging.getLogger("dask_dedup.somewhere").debug("a detail of %s", "[b]data[/b]")
    logging.getLogger("dask_dedup.somewhere").warning("a warning of :smile: %s", "x" * 200)
    lines = shown.getvalue().splitlines(keepends=True)
    if "-v" in arguments:
        assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
        lines = [line[9:] for line in lines]
    assert "".join(lines) == (
        details * "a detail of [b]data[/b]\n" + warnings * f"a warning of :smile: {'x' * 200}\n"
    )
