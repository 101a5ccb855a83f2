"""Errors about settings name the option that was typed, and the setting where none was."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup.cli import commands as cli
from dask_dedup.cli.command_types import as_typed
from dask_dedup.runtime.executor import compute_tasks


def command(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_dataset):
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype("f4")
    frame = pd.DataFrame({"url": [f"u{i}" for i in range(60)], "width": np.arange(60)})
    return write_dataset(tmp_path_factory.mktemp("typed") / "data", [rows], [frame])


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("typed-out") / "out"
    dask_dedup.run(data, out, cells=1, audit_queries=0, report=False, execute=compute_tasks)
    return out


WRONG = [
    (["--keep", "wdth desc"], "--keep 'wdth desc': there is no column 'wdth'"),
    (["--keep", "width desc)"], "--keep 'width desc)': syntax error"),
    (["--protect", "surce = 'x'"], "--protect \"surce = 'x'\": there is no column 'surce'"),
    (["--merge", "caption"], "--merge: expected COLUMN=WAY"),
    (["--merge", "url=most"], "--merge url: Input should be 'distinct'"),
    (["--merge", "nothing=first"], "--merge: there is no column 'nothing'"),
    (["--max-per-cluster", "-1"], "--max-per-cluster: Input should be greater than or equal to 0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[one[0][0] for one in WRONG])
@pytest.mark.parametrize("verb", ["run", "keep"])
def test_wrong_rules_of_which_copy_stays_name_their_option(
    data, out, tmp_path, verb, options, message
):
    done = command(verb, data if verb == "run" else out, tmp_path / "to", *options)
    assert done.exit_code == 2
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("dask-dedup: ")]
    assert line.startswith(f"dask-dedup: {message}"), line
    assert "keep." not in line
    assert not (tmp_path / "to").exists()


def test_a_setting_that_was_typed_by_its_name_keeps_it(data, tmp_path):
    (tmp_path / "run.toml").write_text("[keep]\norder = 'wdth'\n")
    for options in (["--set", "keep.order=wdth"], ["--config", tmp_path / "run.toml"]):
        done = command("run", data, tmp_path / "to", *options)
        assert done.exit_code == 2
        assert "dask-dedup: keep.order 'wdth': there is no column" in done.stderr


@pytest.mark.parametrize("value", ["1.5", "nan", "0", "-0.5", "inf"])
def test_a_threshold_that_is_no_cosine_is_called_that(data, out, tmp_path, value):
    done = command("relabel", out, tmp_path / "to", f"--threshold={value}")
    assert done.exit_code == 2
    expected = f"--threshold: expected a cosine above 0 and at most 1, got {float(value):g}.\n"
    assert done.stderr == f"dask-dedup: {expected}"
    done = command("run", data, tmp_path / "to", f"--threshold={value}")
    assert done.exit_code == 2
    assert "dask-dedup: --threshold: Input should be" in done.stderr
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("value", ["1.5", "nan", "0", "1"])
def test_a_share_that_is_none_names_its_option(out, tmp_path, value):
    done = command("relabel", out, tmp_path / "to", f"--keep-fraction={value}")
    assert done.exit_code == 2
    assert done.stderr.startswith("dask-dedup: --keep-fraction: expected a share above 0 and below")


def test_as_typed_leaves_what_only_looks_alike():
    options = [("keep.order", "--keep"), ("seed", "--seed")]
    for text in (
        "keep.orders: unknown",
        "my.keep.order: unknown",
        "/data/keep.order.csv: no such file",
        "a seed: is needed",
        "seeds: too many",
    ):
        assert as_typed(text, options) == text
    both = "settings: keep.order: x.\nsettings: seed: y."
    assert as_typed(both, options) == "--keep: x.\n--seed: y."
