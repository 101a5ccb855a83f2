"""Files that cannot be read: with ``--skip-bad-parts`` a run goes on without them, and says so.

Rows of an embedding file that is quarantined are kept, alone and invalid (``unreadable``); metadata
that are quarantined come out null. A file that is bad when a run begins is found by its header. A
file that becomes bad later ends the run with one error: the same command again goes on without it,
so no result mixes the two.
"""

from __future__ import annotations

import logging
from typing import Any

from dask_dedup.data.dataset import Dataset, read_dataset
from dask_dedup.errors import UnreadableError
from dask_dedup.paths import AnyPath
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.foreign_content import refuse_inputs_inside
from dask_dedup.storage.run_folder import RunFolder

__all__ = [
    "list_quarantined",
    "note_bad",
    "open_dataset",
    "refuse_inputs_among_results",
    "result_settings",
    "warn_quarantined",
]

logger = logging.getLogger(__name__)


def open_dataset(dataset: str | AnyPath, out: AnyPath, settings: Settings) -> Dataset:
    """Open the data set of a run.

    A file that an earlier run into ``out`` has quarantined stays so as long as it is unchanged.
    """
    # Files that are not compared are not checked: one that is missing or being written is no error.
    data = read_dataset(dataset, **settings.read.model_dump(), texts=False)
    refuse_inputs_among_results(out, data)
    if not settings.read.skip_bad_parts:
        return data
    known = {bad["path"]: bad for bad in RunFolder.read_quarantined(out)}
    again = data.quarantined({path: bad["problem"] for path, bad in known.items()})
    unchanged = {
        bad.path: bad.problem
        for bad in again.bad_files
        if bad.path in known and (bad.size, bad.version) == _version_of(known[bad.path])
    }
    data = data.quarantined(unchanged)
    warn_quarantined(data)
    return data


def refuse_inputs_among_results(out: AnyPath, data: Dataset) -> None:
    """Raise InputError where files of a data set lie where a run puts its own."""
    files = (*RunFolder.result_files, *RunFolder.optional_files)
    own = (*RunFolder.result_folders, *files, RunFolder.state_name, "stages")
    refuse_inputs_inside(out, own, data.paths)


def result_settings(data: Dataset, settings: Settings) -> dict[str, Any]:
    """Return everything that the result depends on, but for the content of the input."""
    bad = sorted(file.path for file in data.bad_files)
    return {**settings.for_result(), **({"quarantined": bad} if bad else {})}


def note_bad(folder: RunFolder, data: Dataset, error: UnreadableError) -> UnreadableError:
    """Return the error of a file that has become bad during a run, with what to do.

    The file is noted in OUT: what a scan does not see, such as a damaged page behind a whole
    footer, is quarantined by the next start as long as the file is as it is now.
    """
    less = data.quarantined({error.path: str(error)})
    if len(less.bad_files) == len(data.bad_files):
        return error
    folder.note_quarantined(list_quarantined(less))
    text = f"{str(error).rstrip('.')}. Run the same command again: it goes on without this file."
    return UnreadableError(text, error.path)


def list_quarantined(data: Dataset) -> list[dict[str, Any]]:
    """Return the files that are quarantined, for ``summary.json``."""
    return [bad._asdict() for bad in data.bad_files]


def warn_quarantined(data: Dataset) -> None:
    """Log the files that are quarantined."""
    for bad in data.bad_files:
        logger.warning("quarantined, %s rows of its part: %s", f"{bad.rows:,}", bad.problem)


def _version_of(bad: dict[str, Any]) -> tuple[int, str]:
    return bad["size"], bad["version"]
