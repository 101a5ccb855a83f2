"""`export`: what the command writes, prints and refuses; a kill in the midst."""

import os
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial

import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup.cli import commands as cli
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.stage import RECORD

run_here = partial(dask_dedup.run, execute=compute_tasks)


def command(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_export_writes_what_python_writes(tmp_path, out):
    result = command("export", out, tmp_path / "to", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "kept: 200 of 300 rows in 2 files" in result.output
    dask_dedup.export(out, tmp_path / "same")
    for path in (tmp_path / "same").rglob("*.*"):
        if path.suffix in (".npy", ".parquet"):
            other = tmp_path / "to" / path.relative_to(tmp_path / "same")
            assert other.read_bytes() == path.read_bytes()
    again = command("export", out, tmp_path / "to", "--workers", 1)
    assert "nothing to do" in again.output
    other = command("export", out, tmp_path / "to", "--what", "dropped")
    assert other.exit_code == 2
    assert "begin anew with --overwrite" in other.output


def test_export_with_options_reaches_the_format(tmp_path, out):
    result = command(
        "export", out, tmp_path / "to", "--what", "dropped", "--format", "csv", "--columns",
        "caption", "--shard-rows", 30, "--workers", 1,
    )  # fmt: skip
    assert "dropped: 100 of 300 rows in 4 files" in result.output, result.output
    found = pd.concat([pd.read_csv(path) for path in sorted((tmp_path / "to/csv").iterdir())])
    assert found["row_id"].tolist() == list(range(200, 300))
    assert found["witness_row_id"].tolist() == list(range(100))
    assert [*found][-2:] == ["witness_similarity", "caption"]


def test_export_of_samples_says_what_is_not_of_the_result(tmp_path, out):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("0-0.txt", "0-99.txt", "1-169.txt", "foreign.txt"):
            tar.addfile(tarfile.TarInfo(name))
    words = ["--format", "webdataset", "--key", "caption", "--workers", 1]
    result = command("export", out, tmp_path / "to", "--shards", tmp_path / "a.tar", *words)
    assert result.exit_code == 0, result.output
    assert "3 of 4 samples in 1 tar" in result.output
    assert "unmatched: 1 sample\n" in result.output
    missing = command("export", out, tmp_path / "no", "--shards", tmp_path / "b.tar", *words)
    assert missing.exit_code == 2
    assert "b.tar" in missing.output


@pytest.mark.slow
def test_export_killed_in_the_midst_goes_on(tmp_path, write_dataset):
    rows = np.random.default_rng(0).normal(size=(60_000, 16)).astype("f4")
    data = write_dataset(tmp_path / "data", np.split(rows, 60))
    run_here(data, tmp_path / "out", audit_queries=0, search_threshold=0.999, threshold=0.999)
    words = [sys.executable, "-m", "dask_dedup", "export", tmp_path / "out", tmp_path / "to",
             "--workers", 1, "-q"]  # fmt: skip
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE)
    stages = tmp_path / "to" / "stages" / "export"
    while len(list(stages.glob(f"*{RECORD}"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    before = {path: path.stat().st_mtime_ns for path in stages.glob(f"*{RECORD}")}
    assert 3 <= len(before) < 60
    assert not (tmp_path / "to" / "metadata").exists()
    kept = []

    def counted(tasks, on_result):
        if tasks:  # what was counted before is there
            kept.append(60 - len(tasks))
        return compute_tasks(tasks, on_result)

    summary = dask_dedup.export(tmp_path / "out", tmp_path / "to", execute=counted)
    assert kept == [len(before)]
    dask_dedup.export(tmp_path / "out", tmp_path / "whole")
    assert summary["rows"] == sum(
        len(np.load(path)) for path in (tmp_path / "to" / "img_emb").iterdir()
    )
    for path in (tmp_path / "whole").rglob("*.npy"):
        other = tmp_path / "to" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()
    assert not os.path.exists(stages)
