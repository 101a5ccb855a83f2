"""Each damaged or odd input: one clear error from the real command, or the right counts."""

from __future__ import annotations

import importlib.util
import signal
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import dask
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup import InputError, Settings
from dask_dedup.cli import commands as cli
from dask_dedup.report.count_text import count_text
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

HERE = Path(__file__).parent
TABLE = HERE / "INPUTS.md"
HEAD = """# Bad and odd inputs, and what each one gets

Two parts of 40 rows, one of them changed, or one file for DATA; made and checked by `corpus.py` and
`test_corpus.py`.
Every error is one line on stderr with exit code 2; nothing is written.

| input | gets |
|---|---|
"""


def load(name: str) -> ModuleType:
    """Return a module beside this one."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


corpus = load("corpus")
CASES = {**corpus.CASES, **load("single_files").CASES}
SETTINGS = load("settings_files").SETTINGS
REFUSED = [name for name, case in CASES.items() if case.says]
TAKEN = [name for name, case in CASES.items() if not case.says]


@pytest.fixture(autouse=True)
def in_time():
    """End what hangs: who opens a named pipe waits for a writer."""

    def stop(*_):
        raise AssertionError("still waiting after two minutes")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def good(tmp_path):
    corpus.write_good(tmp_path / "data")
    return tmp_path / "data"


def refusal(data: Path, out: Path, *options: str) -> str:
    """Return the one error of the command."""
    arguments = ["run", str(data), str(out), "--workers", "1", *options]
    ran = CliRunner().invoke(cli.main, arguments)
    assert ran.exit_code == 2, ran.output
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    lines = [line for line in ran.stderr.splitlines() if line.startswith("dask-dedup: ")]
    assert len(lines) == 1, ran.stderr
    assert "Traceback" not in ran.output
    return lines[0]


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_gets_one_clear_error_and_no_output(name, good, tmp_path):
    case = CASES[name]
    case.make(good)
    data = good / case.data if case.data else good
    if case.late:
        with dask.config.set(scheduler="synchronous"), pytest.raises(InputError) as error:
            run_here(data, tmp_path / "out")
        said = str(error.value)
    else:
        said = refusal(data, tmp_path / "out", *case.options)
    assert case.says in said
    assert said.isprintable()
    assert not Path("unpickled").exists()
    assert not (tmp_path / "out" / "clusters").exists()


@pytest.mark.parametrize("name", TAKEN)
def test_odd_input_is_counted_right(name, good, tmp_path):
    case = CASES[name]
    case.make(good)
    data = good / case.data if case.data else good
    with dask.config.set(scheduler="synchronous"):
        settings = Settings.model_validate(case.settings or {})
        summary = run_here(data, tmp_path / "out", settings)
    assert (summary["rows"], summary["invalid_rows"]) == (case.rows, case.invalid)
    clusters = pq.read_table(
        max((tmp_path / "out" / "clusters").iterdir()),
        columns=["row_id", "cluster_id", "is_valid"],
    ).to_pandas()
    valid = clusters["is_valid"]
    assert (~valid).sum() == min(case.invalid, len(clusters))
    alone = name not in ("all rows equal", "dimension 1")
    assert (clusters["cluster_id"] == clusters["row_id"])[valid].all() == alone


@pytest.mark.parametrize("name", list(SETTINGS))
def test_bad_settings_get_one_clear_error(name, good, tmp_path):
    content, says = SETTINGS[name]
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    said = refusal(good, tmp_path / "out", "--config", str(path))
    assert says in said
    assert not (tmp_path / "out").exists()


def test_table_of_inputs_names_every_case():
    wanted = table_of_inputs()
    assert TABLE.read_text(encoding="utf-8") == wanted, f"write it anew: python {__file__}"


def table_of_inputs() -> str:
    """Return the list of inputs that the tests have checked, for the documentation."""
    lines = []
    for name, case in CASES.items():
        got = f"error: … {case.says} …" if case.says else count_text(case.rows, "row")
        got += f", {case.invalid} of them invalid" if case.invalid else ""
        lines.append(f"| {name} | {got} |")
    lines += [f"| settings: {name} | error: … {says} … |" for name, (_, says) in SETTINGS.items()]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table_of_inputs(), encoding="utf-8")
