"""The Pareto evaluation: recall, speed, size and times of many searches over one data set.

1. The truth: exhaustive search for a seeded sample of queries (`dask_dedup.evaluate.truth`).
2. Each model compresses all rows into one file. 3. For each model and factory an index is trained
on a seeded sample, filled, measured, and searched with each ``nprobe``. 4. The points that
no other point dominates are the front.

Each index is held in memory while it is measured, one at a time, and a search is refused that would
not fit: for more rows than that, evaluate a sample of the data set. Measurements run one after the
other in the calling process, since processes side by side would disturb each other's clocks.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import psutil

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.part_rows import gather_by_row
from dask_dedup.data.parts import Part
from dask_dedup.errors import CapacityError, InputError, SettingsError
from dask_dedup.evaluate.evaluation_folder import finish, is_finished, one_by_one, open_folder
from dask_dedup.evaluate.evaluation_settings import ParetoSettings
from dask_dedup.evaluate.factories import choose_centroids, fill_factories
from dask_dedup.evaluate.front import pareto_front, recall_with_ties
from dask_dedup.evaluate.indexes import (
    add_rows,
    index_bytes,
    search_index,
    search_settings,
)
from dask_dedup.evaluate.models import check_model_names, model_identity, open_model, write_rows
from dask_dedup.evaluate.truth import TruthSettings, find_truth, read_neighbours
from dask_dedup.ivf.train_base import train_base
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks
from dask_dedup.runtime.limits import memory_limit
from dask_dedup.storage.files import read_json, write_aside, write_json
from dask_dedup.storage.stage import Stage
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows
from dask_dedup.vectors.sample import hash_rows

__all__ = ["measure_pareto", "points_frame"]

_TRAIN_PURPOSE = 11  # of the sample: see vectors.sample
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_FIRST_ROWS = 8192  # added before the rest, to measure the bytes of a row
_MEMORY_SHARE = 0.8  # of what is available, for the index


@dataclass(frozen=True)
class _Search:
    """What one measuring task is to do; everything but the data."""

    model: str
    factory: str
    rows_path: str
    parts: tuple[Part, ...]
    truth: str
    settings: dict[str, Any]


def measure_pareto(
    dataset: Dataset,
    out: Path,
    settings: ParetoSettings,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    truth_execute: Execute = compute_tasks,
    progress: Progress | None = None,
    memory_bytes: int | None = None,
) -> dict[str, Any]:
    """Measure every model with every factory and search setting; computes.

    Writes ``pareto.csv``, ``pareto.json``, ``truth/`` and ``models/`` (those fitted here) to
    ``out``. The same call again does nothing; one that was stopped continues at the index where it
    stopped.

    Parameters
    ----------
    dataset : Dataset
    out : Path
    settings : ParetoSettings
    device : str
        Where networks are trained: ``cpu``, or, experimental, ``cuda`` or ``auto``.
    overwrite : bool
        Begin anew.
    truth_execute : Execute
        For the exhaustive search alone.
    progress : Progress, optional
    memory_bytes : int, optional
        For an index; by default what the machine has left.

    Returns
    -------
    dict
        As ``pareto.json``: "points" (one dict each, see `points_frame`), "rows", "queries",
        "settings", "machine".

    Raises
    ------
    SettingsError, InputError, OutputError
    CapacityError
        An index would not fit into the memory that is available.
    """
    check_model_names(settings.models)
    dataset = dataset.view(settings.modality)
    progress = progress or NoProgress()
    keys = {
        **settings.model_dump(mode="json"),
        "models": [model_identity(spec) for spec in settings.models],
        "input": dataset.fingerprint,
    }
    with open_folder(out, "pareto", keys, overwrite) as stage:
        result = read_json(out / "pareto.json")
        if is_finished(stage) and isinstance(result, dict):
            return result
        stage.prepare()
        k = max(settings.ks)
        truth = TruthSettings(settings.queries, k, None, settings.modality, settings.seed)
        find_truth(dataset, out / "truth", truth, execute=truth_execute, progress=progress)
        queries = len(read_neighbours(out / "truth").queries)
        if not queries:
            raise InputError(
                f"{dataset.path}: no sampled row has {k} usable neighbours. Take smaller --ks."
            )
        models = _write_models(dataset, out, settings, device, progress)
        records = _measure_all(dataset, out, settings, models, progress, memory_bytes)
        result = {
            "rows": dataset.rows,
            "dim": dataset.dim,
            "queries": queries,
            "points": _mark_front(
                [{**record["index"], **point} for record in records for point in record["points"]],
                k,
            ),
            "settings": settings.model_dump(mode="json"),
            "machine": _machine(),
        }
        with write_aside(out / "pareto.csv") as temporary:
            points_frame(result).to_csv(temporary, index=False)
        write_json(out / "pareto.json", result)
        finish(stage)
        shutil.rmtree(out / "stages", ignore_errors=True)
        return result


def points_frame(result: dict[str, Any]) -> pd.DataFrame:
    """Return the points as a table, one row for each search.

    ``model``, ``dim``, ``factory``, ``setting`` (such as ``nprobe=4``, empty where there is
    nothing to set), ``bytes_per_vector`` (what one more row adds to the index's file: code, id,
    links), ``index_bytes``, ``recall@k`` (0 to 1), ``queries_per_second`` (the median of the
    repeats, with its slowest and fastest), ``transform_seconds`` (compressing all rows),
    ``train_seconds``, ``build_seconds``, ``front`` (no other point has as much recall at the
    largest k at a higher speed, or more at the same), ``front_with_bytes`` (with bytes as a third
    measure).
    """
    return pd.DataFrame(result["points"])


def _write_models(
    dataset: Dataset, out: Path, settings: ParetoSettings, device: str, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Compress all rows with each model: name to details, the path of the rows among them."""
    models = {}
    folder = out / "stages" / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    progress.start("compress", dataset.rows * len(settings.models))
    for spec in settings.models:
        named = open_model(
            spec, dataset, out / "models",
            modality=settings.modality, seed=settings.seed, device=device,
        )  # fmt: skip
        path = folder / f"{named.name}.npy"
        details = read_json(path.with_suffix(".json"))
        advance = progress.advance if details is None else progress.skip
        if details is None:
            details = {
                **write_rows(named.model, dataset.filled_parts, path),
                "dim": named.model.dim_out,
                "path": str(path),
            }
            write_json(path.with_suffix(".json"), details)
        models[named.name] = details
        advance(dataset.rows)
    progress.finish()
    return models


def _measure_all(
    dataset: Dataset,
    out: Path,
    settings: ParetoSettings,
    models: dict[str, dict[str, Any]],
    progress: Progress,
    memory_bytes: int | None,
) -> list[dict[str, Any]]:
    """Measure each model with each factory, in this process: the records of the tasks."""
    centroids = choose_centroids(dataset.rows, settings.centroids)
    tasks: dict[str, tuple] = {}
    for name, details in models.items():
        for factory in fill_factories(settings.factories, settings.m, centroids, details["dim"]):
            search = _Search(
                name, factory, details["path"], dataset.filled_parts,
                str(out / "truth"), settings.model_dump(),
            )  # fmt: skip
            tasks[f"{len(tasks):04d}"] = (_Boxed(search), details["seconds"], memory_bytes)
    if not tasks:
        raise SettingsError(
            f"none of m = {', '.join(map(str, settings.m))} divides the dimension of any model: "
            f"there is nothing to measure."
        )
    progress.start("indexes", dataset.rows * len(tasks))
    stage = Stage(out / "stages" / "points", {"input": dataset.fingerprint, **_versions()})
    records = stage.run(
        _measure_index,
        tasks,
        one_by_one,
        lambda _: progress.advance(dataset.rows),
        lambda _: progress.skip(dataset.rows),
    )
    progress.finish()
    return records


class _Boxed:
    """Holds an object that Dask must not search for tasks."""

    def __init__(self, content: _Search) -> None:
        self.content = content


def _measure_index(
    box: _Boxed, transform_seconds: float, memory_bytes: int | None
) -> dict[str, Any]:
    """Train, fill, measure and search one index: "index", what all points share, and "points"."""
    search, settings = box.content, ParetoSettings.model_validate(box.content.settings)
    rows = np.load(search.rows_path, mmap_mode="r")
    usable = np.load(Path(search.rows_path).with_suffix(".usable.npy"))
    order = np.argsort(hash_rows(usable, settings.seed, _TRAIN_PURPOSE), kind="stable")
    sample = np.sort(usable[order[: settings.train_rows]])
    clock = _CLOCKS[settings.clock]
    began = clock()
    index = train_base(rows[sample], search.factory, seed=settings.seed, threads=settings.threads)
    trained = clock()
    empty_bytes = index_bytes(index)
    began_adding = clock()
    add_rows(index, rows, usable[:_FIRST_ROWS])
    paused = clock()
    _refuse_too_large(search, index, empty_bytes, len(usable), memory_bytes)
    went_on = clock()
    add_rows(index, rows, usable[_FIRST_ROWS:])
    built = clock()
    size = index_bytes(index)
    return {
        "index": {
            "model": search.model,
            "dim": rows.shape[1],
            "factory": search.factory,
            "bytes_per_vector": (size - empty_bytes) / len(usable),
            "index_bytes": size,
            "transform_seconds": transform_seconds,
            "train_seconds": trained - began,
            "build_seconds": paused - began_adding + built - went_on,
        },
        "points": [
            _measure_search(search, settings, index, rows, usable, setting)
            for setting in search_settings(index, settings.nprobe, settings.ef_search)
        ],
    }


def _measure_search(
    search: _Search,
    settings: ParetoSettings,
    index: faiss.Index,
    rows: np.ndarray,
    usable: np.ndarray,
    setting: tuple[str, int],
) -> dict[str, Any]:
    """Search with one setting: recall, and queries per second."""
    truth = read_neighbours(Path(search.truth))
    queries = np.ascontiguousarray(rows[truth.queries])
    k = max(settings.ks)
    positions = search_index(index, queries, k + 1, setting)
    clock, seconds = _CLOCKS[settings.clock], []
    for _ in range(settings.repeats):
        began = clock()
        search_index(index, queries, k + 1, setting)
        seconds.append(clock() - began)
    found = np.where(positions < 0, -1, usable[positions])
    similarity = _true_similarity(search.parts, truth.queries, _without_self(found, truth.queries))
    name, value = setting
    return {
        "setting": f"{name}={value}" if name else "",
        **recall_with_ties(similarity, truth.similarity, settings.ks, settings.tie_epsilon),
        "queries_per_second": len(queries) / float(np.median(seconds)),
        "slowest": len(queries) / max(seconds),
        "fastest": len(queries) / min(seconds),
    }


def _without_self(found: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Drop each query from its own results, or else the last one: (n, k + 1) to (n, k)."""
    drop = found == queries[:, None]
    drop[~drop.any(axis=1), -1] = True
    return found[~drop].reshape(len(found), -1)


def _true_similarity(parts: Sequence[Part], queries: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the cosines of queries and results from the stored values; -inf for -1."""
    ids = np.unique(np.concatenate([queries, found[found >= 0]]))
    stored = exact_rows(gather_by_row(parts, ids))
    i, rank = np.nonzero(found >= 0)
    left = np.searchsorted(ids, queries)[i]
    right = np.searchsorted(ids, found[i, rank])
    similarity = np.full(found.shape, -np.inf, np.float32)
    similarity[i, rank] = cosine_pairs(stored, stored, left, right)
    return similarity


def _mark_front(points: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    measures = np.array(
        [[p[f"recall@{k}"], p["queries_per_second"], -p["bytes_per_vector"]] for p in points]
    )
    fronts = zip(pareto_front(measures[:, :2]), pareto_front(measures), strict=True)
    return [
        {**point, "front": bool(two), "front_with_bytes": bool(three)}
        for point, (two, three) in zip(points, fronts, strict=True)
    ]


def _refuse_too_large(
    search: _Search, index: faiss.Index, empty_bytes: int, rows: int, memory_bytes: int | None
) -> None:
    """Raise CapacityError where the index, filled like its first rows, would not fit."""
    per_row = (index_bytes(index) - empty_bytes) / max(index.ntotal, 1)
    available = memory_bytes or min(psutil.virtual_memory().available, memory_limit())
    if per_row * rows > _MEMORY_SHARE * available:
        raise CapacityError(
            f"{search.factory} over {search.model}: {rows:,} rows of {per_row:.0f} bytes need "
            f"{per_row * rows / 1e9:.1f} GB, of {available / 1e9:.1f} GB available. Evaluate "
            f"a sample of the data set, or leave this factory out."
        )


def _machine() -> dict[str, Any]:
    """Return what the times depend on."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "faiss_instructions": faiss.get_compile_options().strip(),
        **_versions(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("dask_dedup", "numpy")} | {"faiss": faiss.__version__}
