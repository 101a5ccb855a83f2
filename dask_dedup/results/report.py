"""`report`: the page of a finished run, made again or elsewhere."""

from __future__ import annotations

from typing import Any

from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.finished_run import FinishedRun, open_finished
from dask_dedup.results.precision import precision_of
from dask_dedup.results.report_page import write_report
from dask_dedup.runtime.executor import Execute, compute_tasks
from dask_dedup.settings.run_settings import Settings, load_settings
from dask_dedup.storage.checksums import digest_of_file
from dask_dedup.storage.claim import Claim
from dask_dedup.storage.results_list import Results
from dask_dedup.storage.run_folder import PAGE

__all__ = ["page_path", "report"]

_ENDINGS = (".html", ".htm")


def report(
    out: str | AnyPath,
    dest: str | AnyPath | None = None,
    *,
    images: str | None = None,
    thumbnails: int | None = None,
    load_urls: bool | None = None,
    dataset: str | AnyPath | None = None,
    precision: str | AnyPath | None = None,
    execute: Execute = compute_tasks,
) -> AnyPath:
    """Write the page that shows a finished run; computes.

    Parameters
    ----------
    out : path or URL
        Of the run.
    dest : path or URL, optional
        An HTML file, or a folder that gets an ``index.html``; by default the run's own page,
        ``out/report/index.html``, is made anew.
    images : str, optional
        Where local pictures are, from the data set: columns of the user in braces, such as
        ``"images/{key}.jpg"``, or ``"images/{shard}.tar#{key}"`` for samples of webdataset tars.
    thumbnails : int, optional
        How many of them are put into the page, at most 160 pixels wide.
    load_urls : bool, optional
        Load pictures from the rows' URLs when the page is opened, and not only on a click.
    dataset : path or URL, optional
        Where the data set lies now; by default where it lay.
    precision : path or URL, optional
        Labelled pairs of `dask-dedup sample`: their precision is drawn into the sweep.
    execute : Execute
        How tasks are computed; by default on the current Dask scheduler.

    Returns
    -------
    AnyPath
        The HTML file: complete by itself, without anything beside it.

    Raises
    ------
    OutputError
        ``out`` holds no finished run, or another process writes into it.
    SettingsError
        The template of the pictures is none, or there are none where some are asked for.
    InputError
        The pairs are not those of this run, or none is labelled.
    DamagedError
        A result file is missing, or not what was written.

    Notes
    -----
    What is not given is as in the settings of the run. Reads our columns of all parts once, URL and
    caption once, and the forest; holds a row group at a time, and what does not grow with the data
    set: the counts of 20,000 sites, and some thousand rows. One task, the sweep, holds 8 bytes a
    row.
    """
    run = open_finished(out)
    settings = _settings_of(run, images, thumbnails, load_urls)
    if dataset is not None:
        run = FinishedRun(run.path, run.state, {**run.summary, "dataset": str(dataset)})
    target = page_path(run.path, dest)
    estimates = None if precision is None else precision_of(run, precision)
    if target != run.path / PAGE:
        write_report(run, target, settings, execute, precision=estimates)
        return target
    with Claim(run.path, _allow):
        write_report(run, target, settings, execute, precision=estimates)
        Results(run.path).add_file(PAGE, digest_of_file(target))
    return target


def page_path(out: str | AnyPath, dest: str | AnyPath | None) -> AnyPath:
    """Return the file that the page is written to."""
    if dest is None:
        return as_path(out) / PAGE
    path = as_path(dest)
    return path if path.suffix.lower() in _ENDINGS else path / "index.html"


def _settings_of(
    run: FinishedRun, images: str | None, thumbnails: int | None, load_urls: bool | None
) -> Settings:
    given: dict[str, Any] = {
        "report.images": images,
        "report.thumbnails": thumbnails,
        "report.load_urls": load_urls,
    }
    return load_settings(run.path / "settings.toml", given)


def _allow() -> None:
    """Take the folder as it is: `open_finished` has looked at it."""
