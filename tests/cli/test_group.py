"""``--set KEY=VALUE``: every setting of every command that has any."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from dask_dedup.cli import commands as cli
from dask_dedup.cli.group import chosen_settings
from dask_dedup.errors import SettingsError
from dask_dedup.settings.run_settings import Settings

COMMANDS = ["run", "plan", "calibrate", "build-index", "compress"]
COMMANDS += ["evaluate truth", "evaluate pareto", "evaluate paper"]


def every_key() -> list[str]:
    keys = []
    for name, field in Settings.model_fields.items():
        table = getattr(field.annotation, "model_fields", None)
        keys += [f"{name}.{key}" for key in table] if table else [name]
    return keys


def chosen(*assignments: str, **options) -> Settings:
    return chosen_settings({"assignments": assignments, **options})


@pytest.mark.parametrize("key", every_key())
def test_set_takes_every_setting_at_its_default(key):
    value: object = Settings()
    for name in key.split("."):
        value = getattr(value, name)
    if value is None:
        numbers = {
            "compute.workers": 3,
            "report.thumbnails": 40,
            "adc.tolerance": 2.5,
            "cells.cells_per_row": 4.5,
            "encoder": "isc",
        }
        value = numbers.get(key, 0.9)
        value = 2048 if key == "compute.memory" else value
        is_name = key.split(".")[0] in ("read", "keep")
        if is_name or key in ("adc.model", "adc.factory", "compute.work", "report.images"):
            value = "a name"
        if key.split(".")[0] == "cluster":
            value = {"cluster.cores": 4, "cluster.memory": 4096, "cluster.maximum_jobs": 5}.get(
                key, "a name"
            )
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = "[]" if value == () else text
    found: object = chosen(f"{key}={text}")
    for name in key.split("."):
        found = getattr(found, name)
    assert found == ([value] if key in ("read.columns", "read.drop_columns") else value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("read.url_column=link", "link"),
        ("read.url_column='link'", "link"),
        ('read.url_column = "a = b"', "a = b"),
        ("read.url_column=a=b", "a=b"),
        ("read.url_column=x\ny = 1", "x\ny = 1"),
    ],
)
def test_set_takes_toml_and_plain_strings(text, value):
    assert chosen(text).read.url_column == value


def test_set_is_typed_as_in_toml():
    settings = chosen("adc.verify=false", "compute.memory=2GB", "seed=7", "cells.cells_per_row=3")
    assert (settings.adc.verify, settings.compute.memory) == (False, 2_000_000_000)
    assert (settings.seed, settings.cells.cells_per_row) == (7, 3.0)


def test_options_of_their_own_win_over_set_and_set_over_the_file(tmp_path):
    (tmp_path / "a.toml").write_text("seed = 1\n[cells]\ncells_per_row = 2.0\nprobes = 3.0\n")
    given = {
        "assignments": ("cells.cells_per_row=4", "seed=5"),
        "seed": 6,
        "cells__cells_per_row": None,
    }
    settings = chosen_settings(given, tmp_path / "a.toml")
    assert (settings.seed, settings.cells.cells_per_row, settings.cells.probes) == (6, 4.0, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cells.probe=3", r"unknown setting cells\.probe; known here: cells_per_row, cells"),
        ("cells.visits=3", r"cells\.visits is now called cells\.cells_per_row\."),
        ("cell.cells_per_row=3", r"unknown setting cell; known here: seed"),
        ("cells_per_row", r"--set cells_per_row: expected KEY=VALUE, such as cells\.probes=12\."),
        ("=3", r"--set =3: expected KEY=VALUE"),
        ("cells.cells_per_row=many", r"cells\.cells_per_row: .*got 'many'"),
        ("seed.low=3", r"seed: .*got \{'low': 3\}"),
    ],
)
def test_set_of_what_is_wrong_is_one_clear_error(text, message):
    with pytest.raises(SettingsError, match=message):
        chosen(text)


def test_set_of_what_a_command_does_not_use_is_refused():
    with pytest.raises(
        SettingsError, match=r"--set cells\.cells_per_row: this command does not use it"
    ):
        chosen_settings({"assignments": ("cells.cells_per_row=3",)}, used=("seed", "compute"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_with_settings_offers_set(name, tmp_path):
    asked = CliRunner().invoke(cli.main, [*name.split(), "--help"])
    assert "--set KEY=VALUE" in asked.output
    arguments = ["x"] * 3 if name == "compress" else ["x", str(tmp_path / "out")]
    arguments = arguments[:1] if name == "plan" else arguments
    extra = ["--config", __file__] if name == "evaluate paper" else []
    done = CliRunner().invoke(
        cli.main, [*name.split(), *arguments, *extra, "--set", "compute.wrokers=1"]
    )
    assert done.exit_code == 2
    assert "unknown setting compute.wrokers; known here: workers, threads" in done.output


def every_command(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, f"{name}{word} ")
        else:
            yield name + word, command


def test_device_is_the_cpu_everywhere_and_help_calls_others_experimental():
    takers = [
        name
        for name, command in every_command(cli.main)
        if any("--device" in option.opts for option in command.params)
    ]
    assert {"run", "compress", "fit-compressor", "evaluate zeroshot"} <= set(takers)
    for name in takers:
        asked = CliRunner().invoke(cli.main, [*name.split(), "--help"])
        said = " ".join(asked.output.partition("--device ")[2].partition("\n  -")[0].split())
        assert said.endswith(
            "cuda and auto (a GPU if there is one) are experimental [default: cpu]"
        )
