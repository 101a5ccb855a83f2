from __future__ import annotations

import logging
import re

import numpy as np
import pytest

import dask_dedup
from dask_dedup.errors import CapacityError
from dask_dedup.storage.run_log import LOG, RunLog
from tests.conftest import run_here

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d ")


def texts(folder) -> list[str]:
    """Return the lines of a log without their times, which each must have."""
    lines = (folder / LOG).read_text().splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line) for line in lines]


def test_log_has_what_was_said_before_it_was_opened_and_after(tmp_path):
    with RunLog() as log:
        log.note("one")
        log.open(tmp_path)
        log.note("two\nlines")
        assert texts(tmp_path) == ["one", "two lines"]  # while it is open, too


def test_log_of_a_later_run_follows(tmp_path):
    for line in ("one", "two"):
        with RunLog() as log:
            log.open(tmp_path)
            log.note(line)
    assert texts(tmp_path) == ["one", "two"]


def test_log_takes_what_the_package_logs_and_why_it_ended(tmp_path):
    logger = logging.getLogger("dask_dedup.somewhere")
    with pytest.raises(ValueError, match="no"), RunLog() as log:
        log.open(tmp_path)
        logger.warning("careful: %d", 7)
        raise ValueError("no")
    logger.warning("not this")
    assert texts(tmp_path) == ["warning: careful: 7", "ended by ValueError: no"]


def test_log_that_is_never_opened_writes_nothing(tmp_path):
    with RunLog() as log:
        log.note("one")
    assert list(tmp_path.iterdir()) == []


def test_log_beside_adds_each_line_once_whether_it_is_logged_or_not(tmp_path, caplog):
    said: list[str] = []
    logger = logging.getLogger("dask_dedup")
    with RunLog() as log:
        log.open(tmp_path)
        log.beside(said.append)("printed")
        caplog.set_level(logging.INFO, "dask_dedup")
        log.beside(logger.info)("logged")
    assert said == ["printed"]
    assert texts(tmp_path) == ["printed", "logged"]


def test_log_is_bounded_and_keeps_the_end_of_earlier_runs(tmp_path):
    for run in range(20):
        with RunLog(most_bytes=1000) as log:
            log.open(tmp_path)
            for i in range(100):
                log.note(f"{run}-{i}")
        assert (tmp_path / LOG).stat().st_size < 2300
    lines = texts(tmp_path)
    assert lines[-1] == "no more is written here by this run"
    assert "19-0" in lines and "18-3" in lines and "17-0" not in lines


def test_run_writes_stages_and_end_into_its_log_and_adds_to_it(write_dataset, tmp_path):
    data = write_dataset(tmp_path / "data", [np.eye(40, dtype="f4")])
    run_here(data, tmp_path / "out", audit_queries=0)
    lines = texts(tmp_path / "out")
    for stage in ("fit", "layout", "join", "forest", "witnesses", "clusters"):
        assert lines.index(f"{stage}: begun") < lines.index(
            next(line for line in lines if line.startswith(f"{stage}: done in"))
        )
    assert lines[-1] == "finished: 0 duplicates, 0 rows dropped, 40 kept"
    run_here(data, tmp_path / "out", audit_queries=0)  # nothing to do
    assert texts(tmp_path / "out") == lines
    run_here(data, tmp_path / "out", audit_queries=0, threshold=0.97)
    assert texts(tmp_path / "out")[: len(lines)] == lines
    assert "fit: begun" not in texts(tmp_path / "out")[len(lines) :]
    assert dask_dedup.open_result(tmp_path / "out")["threshold"] == 0.97


def test_run_that_does_not_fit_writes_no_log(write_dataset, tmp_path):
    data = write_dataset(tmp_path / "data", [np.eye(40, dtype="f4")])
    with pytest.raises(CapacityError):
        run_here(data, tmp_path / "out", memory="1MB")
    assert not (tmp_path / "out" / LOG).exists()


def test_run_with_overwrite_begins_its_log_anew(write_dataset, tmp_path):
    data = write_dataset(tmp_path / "data", [np.eye(40, dtype="f4")])
    for _ in range(2):
        run_here(data, tmp_path / "out", audit_queries=0, overwrite=True)
    assert texts(tmp_path / "out").count("fit: begun") == 1
