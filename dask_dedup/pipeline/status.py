"""What a run has done and what is left, from the files in its output folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dask_dedup.errors import DamagedError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.pipeline.stages import CLUSTERS, PLAN, WITNESSES, DeclaredStage, stages_of
from dask_dedup.results.finished_run import read_state
from dask_dedup.storage.files import read_json
from dask_dedup.storage.folder_lock import FolderLock
from dask_dedup.storage.objects import exists
from dask_dedup.storage.results_list import Results
from dask_dedup.storage.run_folder import RunFolder
from dask_dedup.storage.small_objects import written_at
from dask_dedup.storage.stage import MANIFEST, RECORD

__all__ = ["StageStatus", "run_status"]

_HOLDER = ("host", "pid", "since", "renewed", "renewed_seconds")
_ALL_RESULTS = RunFolder.result_folders, True  # and the single files


@dataclass(frozen=True)
class StageStatus:
    """One stage: ``state`` is waiting, begun or finished; times in seconds.

    ``tasks`` is None before the stage has begun; ``elapsed`` is from its begin to its last task,
    ``left`` is None where it is unknown.
    """

    name: str
    state: str
    done: int
    tasks: int | None
    elapsed: float
    left: float | None


def run_status(out: AnyPath, verify: bool = False) -> dict[str, Any]:
    """Return how far a run is; changes nothing.

    Parameters
    ----------
    out : path
        The output folder of a run: finished, going on, or stopped.
    verify : bool
        Of a finished run, read every result file from end to end; otherwise only sizes and
        footers.

    Returns
    -------
    dict
        ``state`` (finished, running, stopped), ``stages`` (as `StageStatus`), ``seconds_left``
        (None where unknown), ``settings``; of a finished run ``wall_seconds`` (None where its
        summary is damaged) and ``damage``, a line for each result file that is not whole; of a
        running one ``holder``: ``host``, ``pid``, ``since``, in a store also ``renewed``, as far
        as they are known.

    Raises
    ------
    OutputError
        There is no run.
    """
    state = read_state(out)
    status = {"out": str(out), "settings": state["settings"]}
    if state.get("finished"):
        return status | _finished(out, verify)
    working = as_path(state.get("stages", out / "stages"))
    planned = read_json(working / PLAN) or {}
    all_declared = stages_of(state["settings"].get("finder", "join"))
    expected = _expected(all_declared, planned.get("stages", []))
    declared = [one for one in all_declared if one.is_shown]
    if state.get("search"):  # the forest of a run before is labelled anew
        declared = [WITNESSES, CLUSTERS]
    stages = [
        _stage_status(working / one.folder, one, expected.get(one.name))
        for one in declared
        if not one.is_optional
        or one.name in expected
        or exists(working / one.folder / (one.note or ""))
    ]
    left = [stage.left for stage in stages]
    holder = FolderLock(out).holder()
    if holder is not None:
        status["holder"] = {name: holder[name] for name in _HOLDER if name in holder}
    return status | {
        "state": "stopped" if holder is None else "running",
        "stages": [asdict(stage) for stage in stages],
        "seconds_left": None if None in left else sum(seconds or 0.0 for seconds in left),
    }


def _expected(
    declared: Sequence[DeclaredStage], planned: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return the seconds that a plan expects of each stage that is shown, those before included."""
    seconds = {stage["name"]: stage["seconds"] for stage in planned}
    expected, before = {}, 0.0
    for one in declared:
        own = seconds.get(one.name)
        before += own or 0.0
        if one.is_shown and own is not None:
            expected[one.name], before = before, 0.0
    return expected


def _finished(out: AnyPath, verify: bool) -> dict[str, Any]:
    """Return what is to say of a finished run; no stages and no time where its summary is lost."""
    damage = Results(out).find_damage(*_ALL_RESULTS, verify)
    path = out / "summary.json"
    content = read_json(path)
    summary: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    if not summary and str(path) not in {error.path for error in damage}:
        wrong = "is damaged" if exists(path) else "is missing"
        damage.append(DamagedError(f"{path}: {wrong}.", str(path)))
    if str(path) in {error.path for error in damage}:
        summary = {}
    stages = [
        StageStatus(stage["name"], "finished", 0, None, stage["seconds"], 0.0)
        for stage in summary.get("stages", [])
    ]
    return {
        "state": "finished",
        "stages": [asdict(stage) for stage in stages],
        "wall_seconds": summary.get("wall_seconds"),
        "damage": [str(error) for error in damage],
        "seconds_left": 0.0,
    }


def _stage_status(folder: AnyPath, declared: DeclaredStage, expected: float | None) -> StageStatus:
    """Read one stage's folder: its manifest and the records of its tasks."""
    name = declared.name
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, Mapping):
        return StageStatus(name, "waiting", 0, None, 0.0, expected)
    if declared.note is not None:  # its folder is that of the next stage
        is_done = exists(folder / declared.note)
        state, left = ("finished", 0.0) if is_done else ("begun", expected)
        return StageStatus(name, state, 0, None, 0.0, left)
    if manifest.get("tasks") is None:
        return StageStatus(name, "waiting", 0, None, 0.0, expected)
    records = sorted(written_at(folder, RECORD))
    done, tasks = len(records), manifest["tasks"]
    # The tasks of this start: the time for which a run was stopped does not count.
    (began,) = written_at(folder, MANIFEST)
    if manifest["finished"]:
        return StageStatus(name, "finished", done, tasks, 0.0, 0.0)
    recent = [time for time in records if time >= began]
    elapsed = recent[-1] - began if recent else 0.0
    left = expected
    if recent and elapsed > 0:
        left = elapsed / len(recent) * (tasks - done)
    return StageStatus(name, "begun", done, tasks, elapsed, left)
