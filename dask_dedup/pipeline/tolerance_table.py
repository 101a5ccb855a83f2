"""`calibrate`: the tolerance of the adaptive threshold for a data set and an index, as a table."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import tomli_w
from dask.delayed import delayed

from dask_dedup.data.dataset import Dataset
from dask_dedup.ivf.tolerance import Chosen, Scored, choose_tolerance, curve, sample_curve
from dask_dedup.paths import AnyPath, absolute_name
from dask_dedup.pipeline.adc_finder import AdcFinder
from dask_dedup.pipeline.adc_tasks import score_sample
from dask_dedup.pipeline.job import Job
from dask_dedup.pipeline.stages import SEARCH, WORKING
from dask_dedup.report.tolerance_curve import plot_tolerance
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks, ignore_result
from dask_dedup.runtime.shares import memory_per_worker
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.run_folder import RunFolder

__all__ = ["CalibrationFolder", "calibrate"]


class CalibrationFolder(RunFolder):
    """The output folder of `calibrate`."""

    state_name = "calibration.json"
    result_folders = ()
    result_files = ("curves.csv", "curves.png", "adc.toml", "summary.json")
    optional_files = ()
    other_files = ()


def calibrate(
    data: Dataset,
    out: AnyPath,
    settings: Settings,
    *,
    overwrite: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure precision and recall over the tolerance on a sample with exact truth; computes.

    Writes ``curves.csv`` (``rule``: verified and unverified, whose value is T, and fixed, whose
    value is a distance; ``value``, ``precision``, ``recall`` with each query alike,
    ``pair_recall``, ``passed`` pairs a query), ``curves.png``, ``adc.toml`` (for
    ``run --config``) and ``summary.json``.

    Parameters
    ----------
    data : Dataset
    out : path
    settings : Settings
        ``adc`` holds index, nprobe, sample, and the recall and precision wanted;
        ``adc.tolerance`` is not used.

    Returns
    -------
    dict
        The content of ``summary.json``.

    Raises
    ------
    InputError, SettingsError, OutputError
    """
    adc = settings.adc.model_copy(update={"tolerance": None})
    settings = settings.model_copy(
        update={
            "finder": "adc",
            "adc": adc,
            "audit": settings.audit.model_copy(update={"queries": 0}),
        }
    )
    with CalibrationFolder(
        out, settings.for_result(), data.fingerprint, overwrite, working=WORKING
    ) as folder:
        if folder.is_finished():
            return folder.read_summary()
        folder.begin()
        began = time.perf_counter()
        job = Job(
            data,
            folder,
            settings,
            execute,
            progress or NoProgress(),
            memory_per_worker(settings.compute),
        )
        finder = AdcFinder(job)
        finder.prepare()
        with job.timed(SEARCH):
            task = delayed(score_sample)(finder.layout, adc.nprobe, settings.seed)
            (scored,) = execute([task], ignore_result)
        rounding = finder.details["distance_error"]
        apart = 2.0 - 2.0 * settings.search_threshold
        chosen = {
            "verified": choose_tolerance(scored, rounding + apart, rounding, recall=adc.recall),
            "unverified": choose_tolerance(scored, rounding, rounding, precision=adc.precision),
        }
        curves = _write_curves(scored, chosen, rounding, folder.path)
        _write_setting(chosen, finder.factory, settings, folder.path / "adc.toml")
        summary = {
            "dataset": absolute_name(data.path),
            "factory": finder.factory,
            "nprobe": adc.nprobe,
            "search_threshold": settings.search_threshold,
            "queries": scored.queries,
            "true_pairs": scored.true_pairs,
            "chosen": {rule: one.to_dict() for rule, one in chosen.items()},
            "points": len(curves),
            "stages": job.times,
            "wall_seconds": round(time.perf_counter() - began, 3),
        }
        folder.finish(summary, keep_stages=False)
    return summary


def _write_curves(
    scored: Scored, chosen: dict[str, Chosen], rounding: float, folder: AnyPath
) -> pd.DataFrame:
    epsilons = {rule: one.epsilon for rule, one in chosen.items()} | {"fixed": None}
    tables = [
        sample_curve(curve(scored, epsilon, rounding)).assign(rule=rule)
        for rule, epsilon in epsilons.items()
    ]
    curves = pd.concat(tables, ignore_index=True)
    curves = curves[["rule", *(name for name in curves.columns if name != "rule")]]
    with write_aside(folder / "curves.csv") as temporary:
        curves.to_csv(temporary, index=False)
    points = {rule: (one.recall, one.precision) for rule, one in chosen.items()}
    plot_tolerance(curves, points, folder / "curves.png")
    return curves


def _write_setting(
    chosen: dict[str, Chosen], factory: str, settings: Settings, path: AnyPath
) -> None:
    """Write what `run --config` takes: the index, and T as `verify` decides."""
    adc = settings.adc
    rule = "verified" if adc.verify else "unverified"
    table: dict[str, Any] = {
        "factory": factory,
        "nprobe": adc.nprobe,
        "verify": adc.verify,
        "tolerance": chosen[rule].tolerance,
    }
    if adc.model:
        table["model"] = adc.model
    with write_aside(path) as temporary:
        temporary.write_text(tomli_w.dumps({"finder": "adc", "adc": table}), encoding="utf-8")
