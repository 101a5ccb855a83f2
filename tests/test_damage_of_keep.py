"""Working files of the stages of `[keep]`, harmed between a stop and the next start: made again.

Each stage is stopped when it is done and before the one that reads it begins. The oracle is an
undisturbed choice, itself compared with brute force in `tests/pipeline/test_keep_stages.py`.
"""

import re
import shutil

import dask
import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.data import spans
from dask_dedup.runtime.executor import compute_tasks

ROWS = 700
#: The stage that is stopped before its first task, and the one whose files are harmed.
STOPS = {
    "values": "decided",
    "ranks": "values",
    "compared": "ranks",
    "settled": "placed",
    "carried": "settled",
    "clusters": "carried",
}


class StoppedError(Exception):
    pass


def flip(path):
    """Flip one bit in each eighth of a file."""
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 16, len(content), len(content) // 8):
        content[place] ^= 16
    path.write_bytes(bytes(content))


def flip_one(path):
    """Flip one bit in the middle; it may be one that nothing is read from."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def flip_first(path):
    """Flip one bit of the first page."""
    content = bytearray(path.read_bytes())
    content[40] ^= 8
    path.write_bytes(bytes(content))


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(path):
    path.unlink()


@pytest.fixture(autouse=True)
def small_spans(monkeypatch):
    monkeypatch.setattr(spans, "_LEAST_ROWS", 64)  # so that a stage has several files
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_dataset):
    """A finished run without rules, and the rules."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 150, ROWS)
    rows = rng.normal(size=(150, 16))[group] + 0.12 * rng.normal(size=(ROWS, 16))
    metadata = pd.DataFrame(
        {
            "url": [f"http://x/{i}" for i in range(ROWS)],
            "caption": [f"caption {i % 40}" for i in range(ROWS)],
            "width": rng.integers(1, 99, ROWS),
            "source": np.where(rng.random(ROWS) < 0.05, "gold", "web"),
        }
    )
    folder = tmp_path_factory.mktemp("keep-damage")
    cuts = [150, 300, 450, 600]
    frames = [metadata.iloc[some] for some in np.split(np.arange(ROWS), cuts)]
    data = write_dataset(folder / "data", np.split(rows.astype("f4"), cuts), frames)
    dask_dedup.run(
        data, folder / "out", audit_queries=0, cells=1, report=False, execute=compute_tasks
    )
    (folder / "d.csv").write_text("url,decision\nhttp://x/5,keep\nhttp://x/650,drop\n")
    return folder / "out", {
        "keep": "width desc",
        "protect": "source = 'gold'",
        "decisions": str(folder / "d.csv"),
        "max_per_cluster": 1,
        "merge": "caption=distinct",
    }


def choose(source, out, execute):
    run, rules = source
    dask_dedup.keep(run, out, execute=execute, report=False, **rules)
    return pd.read_parquet(out / "clusters")


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(spans, "_LEAST_ROWS", 64)
        return choose(source, tmp_path_factory.mktemp("whole") / "out", compute_tasks)


@pytest.fixture(scope="module", params=STOPS)
def stopped(request, source, tmp_path_factory):
    """OUT of a choice that was stopped there, and the folder of the stage before."""
    out = tmp_path_factory.mktemp(f"before-{request.param}") / "out"

    def stopping(tasks, on_result):
        if tasks and tasks[0].key.split("-")[0] == request.param:
            raise StoppedError
        return compute_tasks(tasks, on_result)

    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(spans, "_LEAST_ROWS", 64)
        with pytest.raises(StoppedError):
            choose(source, out, stopping)
    return out, STOPS[request.param]


@pytest.mark.parametrize("harm", [delete, halve, flip, flip_one, flip_first])
def test_a_harmed_working_file_of_a_rule_is_made_again(stopped, source, expected, tmp_path, harm):
    """One file of each kind at a time, so that none that is made again covers for another."""
    before, stage = stopped
    files = sorted(p for p in (before / "stages" / stage).rglob("*.parquet") if p.is_file())
    kinds = {re.sub(r"\d+", "N", path.name): path.relative_to(before) for path in files}
    assert kinds
    for kind, name in kinds.items():
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(before, out)
        harm(out / name)
        ran = set()

        def counting(tasks, on_result, ran=ran):
            ran |= {task.key.split("-")[0] for task in tasks}
            return compute_tasks(tasks, on_result)

        pd.testing.assert_frame_equal(choose(source, out, counting), expected, obj=kind)
        if "N" in kind and harm is not flip_one:  # made by a task: its loss was seen
            assert stage in ran, kind
