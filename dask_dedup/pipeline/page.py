"""The report page: the last thing that a run makes, and no condition of its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dask_dedup.data.dataset import Dataset
from dask_dedup.pipeline.job import Job
from dask_dedup.pipeline.stages import REPORT
from dask_dedup.results.finished_run import FinishedRun
from dask_dedup.results.report_page import find_pictures, write_report
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.run_folder import PAGE

__all__ = ["check_pictures", "make_page"]

logger = logging.getLogger(__name__)


def check_pictures(data: Dataset, settings: Settings) -> None:
    """Raise SettingsError, before the work, where ``[report]`` asks for pictures that none has."""
    if settings.report.page:
        find_pictures(settings, data.path, data.columns.schema.names)


def make_page(job: Job, summary: Mapping[str, Any]) -> None:
    """Write the page of a run whose results are published, if it is wanted.

    Where that fails, a warning says so: what has been found stays, and `dask-dedup report` makes
    the page.
    """
    if not job.settings.report.page:
        return
    out = job.folder.path
    with job.timed(REPORT):
        try:
            run = FinishedRun(out, {"digest": job.folder.digest}, summary)
            write_report(run, out / PAGE, job.settings, job.execute, job.progress.advance)
        except Exception as error:
            logger.warning(
                "the page could not be made (%s: %s); `dask-dedup report %s` makes it",
                type(error).__name__,
                error,
                out,
                exc_info=logger.isEnabledFor(logging.DEBUG),
            )
