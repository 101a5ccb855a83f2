from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from dask_dedup.cli.commands import main
from dask_dedup.cli.help_groups import COMMAND_GROUPS, GroupedCommand


def shown(*arguments: str) -> str:
    ran = CliRunner().invoke(main, [*arguments, "--help"], terminal_width=100)
    assert ran.exit_code == 0
    return ran.output


def entries(text: str) -> list[str]:
    """Return what stands first in the lines of a list."""
    return re.findall(r"^  (\S+)", text, re.MULTILINE)


def test_help_lists_each_command_once_under_a_heading():
    names = [name for name in entries(shown()) if name in main.commands]
    assert sorted(names) == sorted(main.commands)
    assert "Other:" not in shown()


def test_help_has_the_headings_in_their_order_and_terms_last():
    headings = re.findall(r"^(\S.*):$", shown(), re.MULTILINE)
    assert headings == ["Options", *COMMAND_GROUPS, "Terms"]


#: Commands that only read, or have commands of their own, say nothing of exit codes.
WITHOUT_CODES = {"evaluate", "precision", "sample", "sweep", "verbatim", "warm-up"}


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_of_a_command_names_every_option_and_the_exit_codes(name):
    text = shown(name)
    options = {
        option
        for parameter in main.commands[name].params
        if not getattr(parameter, "hidden", False)
        for option in parameter.opts
        if option.startswith("-")
    }
    assert {option for option in options if option not in text} == set()
    assert ("Exit codes: 0 " in text) == (name not in WITHOUT_CODES)


def test_run_help_lists_each_option_once_under_a_heading():
    text = shown("run")
    assert "Other:" not in text
    parameters = main.commands["run"].params
    options = {max(one.opts, key=len) for one in parameters if isinstance(one, click.Option)}
    assert len(options) > 35
    for option in (*options, "--help"):
        assert len(re.findall(rf"^  (?:-\w, )?{option}\b(?!-)", text, re.MULTILINE)) == 1, option


def test_run_help_names_what_is_compared_first():
    headings = re.findall(r"^(\S.*):$", shown("run"), re.MULTILINE)
    assert headings[:3] == [
        "What is compared",
        "Threshold, and which rows stay",
        "Recall and cost",
    ]


def test_option_that_no_group_names_is_shown_all_the_same():
    command = GroupedCommand(
        "one",
        params=[click.Option(["--a"], help="first"), click.Option(["--b"], help="second")],
        option_groups={"Known": ("a",)},
    )
    text = CliRunner().invoke(command, ["--help"]).output
    assert re.search(r"Known:\n +--a TEXT +first\n\nOther:\n +--b TEXT +second", text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dask-dedup ru", "plain,run"),
        ("dask-dedup run --thre", "plain,--threads\nplain,--threshold"),
        ("dask-dedup run exa", "file,exa"),
    ],
)
def test_shell_completes_commands_options_and_files(words, expected):
    environment = {
        **os.environ,
        "_DASK_DEDUP_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    script = "import sys; sys.argv = ['dask-dedup']; from dask_dedup.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert sorted(done.stdout.split()) == sorted(expected.split()), done.stderr
