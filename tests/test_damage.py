"""Working files damaged or lost between a stop and the next start: found, made again, same result.

Every kind of file that a run reads back, each harmed in five ways. The oracle is an undisturbed
run, itself compared with brute force.
"""

import logging
import re
import shutil
from functools import partial

import dask
import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup import OutputError, Settings
from dask_dedup.pipeline.status import run_status
from dask_dedup.runtime.executor import NoProgress, compute_tasks
from dask_dedup.storage.files import read_json

run_here = partial(dask_dedup.run, execute=compute_tasks)

STAGES = ["layout", "join", "forest", "witnesses", "clusters"]


class StopAt(NoProgress):
    """Stops a run before one of its stages; "publish": after the last."""

    def __init__(self, stage):
        self.stage, self.last = stage, ""

    def start(self, stage, rows):
        self.last = stage
        if stage == self.stage:
            raise InterruptedError

    def finish(self):
        if self.stage == "publish" and self.last == "clusters":
            raise InterruptedError


def settings(threshold=0.95, **tables):
    return Settings.model_validate(
        {
            "clusters": {"threshold": threshold},
            "audit": {"queries": 200},
            "cells": {"cells": 12},
            **tables,
        }
    )


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3_000, 24))
    rows[1_800:] = rows[rng.integers(0, 1_800, 1_200)] + 0.05 * rng.normal(size=(1_200, 24))
    rows[2_900:] = rows[:100]
    rows[5] = np.nan
    return rows[rng.permutation(3_000)].astype(np.float32)


@pytest.fixture(scope="module")
def data(rows, write_dataset, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "data", np.split(rows, 4))


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with dask.config.set(scheduler="synchronous"):
        run_here(data, out, settings())
    return pd.read_parquet(out / "clusters")


@pytest.fixture(
    scope="module", params=["layout", "join", "forest", "witnesses", "clusters", "publish"]
)
def stopped(request, data, tmp_path_factory):
    """Give OUT of a run that was stopped there."""
    out = tmp_path_factory.mktemp(f"stopped-{request.param}") / "out"
    with dask.config.set(scheduler="synchronous"), pytest.raises(InterruptedError):
        run_here(data, out, settings(), progress=StopAt(request.param))
    return out


def kinds(out):
    """Return one working file of each kind, the stages' own notes left out."""
    files = sorted(p for p in (out / "stages").rglob("*") if p.is_file())
    chosen = {re.sub(r"\d+", "N", str(p.relative_to(out))): p for p in files}
    return [p.relative_to(out) for p in chosen.values()]


def delete(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Flip twenty bits, anywhere."""
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(len(content))
    for position in rng.integers(0, len(content), 20):
        content[position] ^= 1 << rng.integers(8)
    path.write_bytes(content.tobytes())


def flip_one(path):
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(bytes(content))


def blank(path):
    """Write zeros over the middle third."""
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("harm", [delete, halve, flip, blank])
def test_harmed_working_files_change_nothing(stopped, data, expected, tmp_path, harm):
    out = shutil.copytree(stopped, tmp_path / "out")
    for name in kinds(stopped):
        harm(out / name)
    run_here(data, out, settings())
    assert pd.read_parquet(out / "clusters").equals(expected)


@pytest.mark.slow
@pytest.mark.parametrize("harm", [delete, empty, halve, flip, flip_one, blank])
def test_harmed_working_file_changes_nothing(stopped, data, expected, tmp_path, harm):
    """One file at a time: here no file that is made again covers for another."""
    wrong = []
    for name in kinds(stopped):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(stopped, out)
        harm(out / name)
        run_here(data, out, settings())
        if not pd.read_parquet(out / "clusters").equals(expected):
            wrong.append(str(name))
    assert wrong == []


def test_harmed_while_the_run_goes_on_is_made_again_with_one_line(
    data, expected, tmp_path, caplog, stage_notes
):
    """A page of the entries of one part, after the layout has ended."""

    def harm():
        path = next((out / "stages" / "layout").glob("entries-*"))
        blank(path)
        harmed.append(path)

    out, harmed = tmp_path / "out", []
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        run_here(data, out, settings(), progress=stage_notes(do={"join": harm}))
    assert pd.read_parquet(out / "clusters").equals(expected)
    messages = [message for message in caplog.messages if "made again" in message]
    assert len(messages) == 1 and str(harmed[0]) in messages[0]


RESULTS = ["audit/queries", "audit/pairs", "clusters", "forest", "invalid", "summary", "histogram"]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    with dask.config.set(scheduler="synchronous"):
        run_here(data, out, settings(join={"search_threshold": 0.9}))
    return out


@pytest.mark.parametrize("kind", ["clusters", "forest", "invalid", "audit/pairs"])
def test_flipped_bit_in_a_page_of_a_result_is_named(finished, data, tmp_path, kind):
    """When the run is asked for again, for another threshold, and by `status`."""
    out = shutil.copytree(finished, tmp_path / "out")
    path = max((p for p in out.rglob("*") if kind in str(p) and p.is_file()), key=size_of)
    content = bytearray(path.read_bytes())
    content[60] ^= 8  # of the first page
    path.write_bytes(content)
    same = settings(join={"search_threshold": 0.9})
    with pytest.raises(OutputError, match=rf"{re.escape(str(path))}: is damaged .*not whole"):
        run_here(data, out, same)
    if kind != "clusters":
        other = settings(0.93, join={"search_threshold": 0.9})
        with pytest.raises(OutputError, match=rf"{re.escape(str(path))}: is damaged .*not whole"):
            run_here(data, out, other)
    assert read_json(out / "run.json")["finished"]  # nothing was begun
    assert run_status(out)["damage"] == []  # by sizes and footers
    assert [line.partition(":")[0] for line in run_status(out, verify=True)["damage"]] == [
        str(path)
    ]
    path.unlink()
    assert "is missing" in run_status(out)["damage"][0]


def size_of(path):
    return path.stat().st_size


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("harm", [delete, halve])
def test_harmed_result_is_named_when_the_run_is_asked_for_again(
    finished, data, tmp_path, kind, harm
):
    out = shutil.copytree(finished, tmp_path / "out")
    path = next(
        p for p in sorted(out.rglob("*")) if p.is_file() and f"{kind}" in str(p)[len(str(out)) :]
    )
    harm(path)
    with pytest.raises(OutputError, match=rf"{re.escape(str(path))}: .*not whole"):
        run_here(data, out, settings(join={"search_threshold": 0.9}))


@pytest.mark.parametrize("kind", ["audit/queries", "audit/pairs", "forest", "invalid"])
@pytest.mark.parametrize("harm", [flip_one, flip, blank])
def test_another_threshold_is_right_or_refused_whatever_is_harmed(
    finished, data, rows, tmp_path, kind, harm
):
    out = shutil.copytree(finished, tmp_path / "out")
    path = next(p for p in sorted(out.rglob("*")) if kind in str(p) and p.is_file())
    harm(path)
    with pytest.raises((OutputError, dask_dedup.errors.DamagedError), match=re.escape(str(path))):
        run_here(data, out, settings(0.93, join={"search_threshold": 0.9}))
