"""`relabel`: the result of a finished run at another threshold, in a folder of its own.

The forest of the finished run is linked or copied into the new folder, and labelled there as `run`
labels its own: nothing is searched, and the finished run is left as it is. Embeddings are read
where the similarity of duplicates to the rows that stay is computed, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.paths import AnyPath, as_path, is_remote
from dask_dedup.pipeline.run import Flags, Say, log_line, run_into
from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.results.finished_run import FinishedRun, open_finished
from dask_dedup.results.sweep import threshold_of_kept
from dask_dedup.runtime.current_client import current_client
from dask_dedup.runtime.forkserver import start_server
from dask_dedup.settings.option_names import OPTIONS, settings_from
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.files import read_json
from dask_dedup.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from dask_dedup.data.dataset import Dataset
    from dask_dedup.pipeline.relabel import Source
    from dask_dedup.results.result import Result
    from dask_dedup.runtime.executor import Execute, Progress

__all__ = ["relabel"]


def relabel(
    out: str | AnyPath,
    dest: str | AnyPath,
    threshold: float | None = None,
    *,
    keep_fraction: float | None = None,
    dataset: str | AnyPath | None = None,
    overwrite: bool = False,
    break_lock: bool = False,
    execute: Execute | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
    **keywords: Any,
) -> Result:
    """Write the result of a finished run at another threshold into another folder; computes.

    The same clusters as a run of its own at that threshold, row for row, without its search. The
    new folder is complete by itself, and the finished run stays as it is.

    Parameters
    ----------
    out : path or URL
        OUT of the finished run.
    dest : path or URL
        A new or empty folder, or one that this function has begun or written from ``out``.
    threshold : float, optional
        Cosine from which on two rows are duplicates.
    keep_fraction : float, optional
        Instead of a threshold: the highest one at which at most this share of the valid rows (0 to
        1) are no duplicates is taken; see `dask_dedup.results.sweep.threshold_of_kept`.
    dataset : path or URL, optional
        Where the data set lies now; by default where it lay in the finished run.
    overwrite, break_lock
        As of `dask_dedup.run`, of ``dest``.
    execute, progress, say
        As of `dask_dedup.run`.
    **keywords
        What computes: ``workers``, ``threads``, ``work``, ``memory``, ``cluster``, ``dashboard``,
        and the page: ``report``, ``images``, ``thumbnails``, ``load_urls``, as of `dask_dedup.run`.
        All other settings are those of the finished run.

    Returns
    -------
    Result
        Of ``dest``; its ``source_run`` is ``out``.

    Raises
    ------
    OutputError
        ``out`` holds no finished run, or one of another version of dask_dedup; ``dest`` is ``out``,
        or holds something else.
    SettingsError
        The forest does not answer the threshold; or not just one of ``threshold`` and
        ``keep_fraction`` is given.
    InputError
        The data set has changed, or is gone.
    """
    source, target, say = open_finished(out), as_path(dest), say or log_line
    if _is_inside(target, source.path):
        raise OutputError(
            f"{target}: is the finished run itself, or lies in it. Name another folder; `run` with "
            f"another threshold makes the clusters anew in place."
        )
    chosen = _chosen_threshold(source, threshold, keep_fraction, say)
    source.forest_range().check(chosen, str(source.forest_path))
    settings = _settings_of(source, chosen, keywords)
    if not overwrite:
        _refuse_other_run(target, source)
    client = current_client() if execute is None else None
    if execute is None and client is None and settings.cluster.kind == "local":
        start_server(PRELOAD)
    data = _open_data(source, target, dataset)
    found = _find_source(source, data, settings)
    flags = Flags(overwrite, break_lock)
    return run_into(target, data, settings, flags, say, execute, client, progress, found)


def _chosen_threshold(
    source: FinishedRun, threshold: float | None, keep_fraction: float | None, say: Say
) -> float:
    if (threshold is None) == (keep_fraction is None):
        raise SettingsError("relabel: expected a threshold or a share to keep, one of the two.")
    if threshold is not None:
        return threshold
    assert keep_fraction is not None
    found = threshold_of_kept(source.path, keep_fraction)
    say(
        f"threshold {found.threshold} keeps {found.kept_fraction:.2%} of the valid rows; "
        f"{found.duplicates:,} are duplicates"
    )
    return found.threshold


def _settings_of(source: FinishedRun, threshold: float, keywords: Mapping[str, Any]) -> Settings:
    """Return the finished run's settings, at another threshold; what computes is the caller's."""
    free = [
        name
        for name, key in OPTIONS.items()
        if key.split(".")[0] in ("compute", "cluster", "report")
    ]
    for name in keywords:
        if name not in free:
            raise SettingsError(
                f"relabel: unknown keyword {name}. Known are {', '.join(free)}; all other settings "
                f"are those of the finished run."
            )
    tables = dict(source.state["settings"])
    changes = {
        "threshold": threshold,
        "encoder": source.summary.get("encoder"),
        "search_threshold": source.state["search"]["search_threshold"],
        "skip_bad_parts": bool(tables.pop("quarantined", None)),
    }
    return settings_from(tables, {**changes, **keywords})


def _open_data(source: FinishedRun, target: AnyPath, dataset: str | AnyPath | None) -> Dataset:
    """Open the data set of the finished run, whose captions and URLs are needed again."""
    from dask_dedup.pipeline.unreadable_parts import refuse_inputs_among_results, warn_quarantined
    from dask_dedup.results.run_dataset import open_run_dataset

    data = open_run_dataset(source, dataset)
    refuse_inputs_among_results(target, data)
    warn_quarantined(data)
    return data


def _find_source(source: FinishedRun, data: Dataset, settings: Settings) -> Source:
    from dask_dedup.pipeline.relabel import Source, find_kept
    from dask_dedup.pipeline.unreadable_parts import result_settings

    # Not claimed: it is only read.
    folder = RunFolder(source.path, result_settings(data, settings), data.fingerprint)
    search = find_kept(folder, settings)
    if search is None:
        raise OutputError(
            f"{source.path}: is of dask_dedup {source.state.get('version')}, and another version's "
            f"forest is not used. Run it again."
        )
    return Source(source.path, {**search, "source_run": _full_name(source.path)})


def _refuse_other_run(target: AnyPath, source: FinishedRun) -> None:
    """Raise OutputError where a folder holds a run of its own, whose forest would be lost."""
    state = read_json(target / RunFolder.state_name, sealed=True)
    if isinstance(state, Mapping) and state.get("tool") == source.state["tool"]:
        search = state.get("search") or {}
        if search.get("source_run") != _full_name(source.path):
            raise OutputError(
                f"{target}: holds a run that is not of {source.path}, and its forest would be "
                f"lost. Choose another folder, or replace it with --overwrite."
            )


def _is_inside(target: AnyPath, folder: AnyPath) -> bool:
    """Return whether a place is a folder, or lies in it."""
    if is_remote(target) or is_remote(folder):
        return f"{str(target).rstrip('/')}/".startswith(f"{str(folder).rstrip('/')}/")
    return folder.resolve() in (target.resolve(), *target.resolve().parents)


def _full_name(path: AnyPath) -> str:
    """Return a name of a folder that is the same from everywhere."""
    return str(path) if is_remote(path) else str(path.absolute())
