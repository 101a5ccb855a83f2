"""Apply: the decisions of a finished run put to another copy of its metadata, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from natsort import natsorted, ns

from dask_dedup.data.file_versions import check_same, versions_of
from dask_dedup.data.part_names import names_of_files
from dask_dedup.data.scan import find_matching
from dask_dedup.errors import DamagedError, InputError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.results.application import (
    STAGES,
    UNMATCHED_FOLDERS,
    Application,
    choose_ambiguous,
)
from dask_dedup.results.export_tables import ParquetOut
from dask_dedup.results.finished_run import FinishedRun, open_finished, open_table
from dask_dedup.results.key_types import note_types, refuse_other_types, warn_of_few
from dask_dedup.results.result_folder import ResultFolder
from dask_dedup.results.row_keys import named_column
from dask_dedup.results.sizes import MATCHED_ROWS
from dask_dedup.results.source_files import (
    CSV_ENDINGS,
    CsvFile,
    ParquetFile,
    open_source,
    refuse_packed,
)
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import digest_of, write_aside
from dask_dedup.storage.foreign_content import refuse_inputs_inside
from dask_dedup.storage.listing import list_files
from dask_dedup.storage.objects import exists, is_file
from dask_dedup.storage.results_list import RESULTS

__all__ = ["ApplyFolder", "apply"]

_TARGET = "metadata"
_AMBIGUOUS = "ambiguous.parquet"
_ENDINGS = (".parquet", *CSV_ENDINGS)


class ApplyFolder(ResultFolder):
    """The output folder of an application: see `ResultFolder`."""

    state_name = "apply.json"
    result_files = (_AMBIGUOUS, "summary.json", RESULTS)
    own_names = r".*\.(?i:parquet|csv|tsv)"
    possible_folders = (_TARGET, *UNMATCHED_FOLDERS)


def apply(
    out: str | AnyPath,
    metadata: str | AnyPath,
    dest: str | AnyPath,
    *,
    key: str | Sequence[str] = "url",
    ambiguous: str = "keep",
    overwrite: bool = False,
    matched_rows: int = MATCHED_ROWS,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write another copy of a run's metadata without the rows that the run has dropped; computes.

    The copy may have another order, further rows and fewer ones; its rows are known by a key.

    Parameters
    ----------
    out : path or URL
        Of the run.
    metadata : path, URL or pattern
        Parquet or CSV files (with a header; ``.tsv`` with tabs): a folder, a file, or a pattern.
    dest : path or URL
        A new or empty folder, or one in which the same was interrupted: it goes on there.
    key : str or sequence of str
        The columns that identify a row: ``url``, ``sha256``, or several. Text is compared
        as it is, numbers as they are written out.
    ambiguous : str
        What becomes of rows whose key stands, in the result, for rows that stay and for rows that
        are dropped: ``keep``, ``drop``, or ``error``.
    overwrite : bool
        Begin anew, whatever an earlier one left in ``dest``.
    matched_rows : int
        Rows of both sides whose keys are compared at a time: what the memory of tasks follows from.
    execute, progress
        See `dask_dedup.runtime.executor`.

    Returns
    -------
    dict
        The content of ``dest/summary.json``. ``metadata`` counts the rows of ``metadata_rows`` by
        what became of them: ``kept``, ``dropped``, ``ambiguous``, ``unmatched`` (the result knows
        no such key; kept), ``keyless`` (null or empty; kept), and ``without_witness``: the run has
        dropped them, but the row that stays in their place is not in this copy, so they are kept.
        ``result`` counts the rows of ``result_rows``: ``matched``, ``unmatched``, ``keyless``.
        ``rows`` were written. ``repeated_keys`` and ``ambiguous_keys`` are keys of the result;
        ``key_types`` are its types on both sides. Where nearly nothing matches, a line is logged.

    Raises
    ------
    OutputError
        ``out`` is no finished run, its clusters are damaged, or ``dest`` holds something else.
    InputError
        No such files, one cannot be read, or keys are ambiguous where that is an error.
    SettingsError
        A column of the key is missing on one side, or is a number on one and text on the other.

    Notes
    -----
    ``dest/metadata`` has the files with their names, their columns and types, in their order;
    ``dest/ambiguous.parquet`` the ambiguous keys with their numbers of rows;
    ``dest/unmatched_metadata`` and ``dest/unmatched_result`` the rows of one side only.

    Tasks hold the key and the decision of a million rows, or the key columns of one part of the
    clusters, and one byte for each row of a file.
    """
    progress = progress or NoProgress()
    choose_ambiguous(ambiguous)
    run, dest = open_finished(out, ["clusters"]), as_path(dest)
    run.refuse_inside(dest)
    names = [key] if isinstance(key, str) else list(key)
    names = [name.strip() for text in names for name in text.split(",")]
    paths = _find_files(metadata)
    for path in paths:
        refuse_packed(path)
    sources = [_with_key(path, names, run) for path in paths]
    own = {"url": run.read.url_column, "caption": run.read.caption_column}
    there = run.user_columns()
    known = {source: name for name, source in own.items() if source}
    columns = tuple(
        named_column(known.get(name, name), there, f"the result {run.path}") for name in names
    )
    schema = run.schema()
    known_types = [schema.field(name).type for name in columns]
    types = [source.key_types() for source in sources]
    for source, found in zip(sources, types, strict=True):
        refuse_other_types(names, known_types, found, str(run.path), source.path)
    refuse_inputs_inside(
        dest, (*ApplyFolder.possible_folders, "stages"), [*paths, run.clusters_path(run.names[0])]
    )
    versions = versions_of(paths)
    settings = {"key": list(columns), "ambiguous": ambiguous}
    fingerprint = digest_of({"run": run.identity, "files": versions})
    with ApplyFolder(
        dest, settings, fingerprint, ApplyFolder.possible_folders, STAGES, overwrite
    ) as folder:
        if not folder.begin_unless_finished():
            summary = folder.read_summary()
            warn_of_few(summary)
            return summary
        application = Application(
            run,
            sources,
            names_of_files(paths, *_suffixes(paths)),
            _TARGET,
            columns,
            ambiguous,
            matched_rows=matched_rows,
        )
        outcome = application.do(folder, execute, progress, versions)
        check_same(versions)
        for stage, name, records in outcome.results:
            folder.publish(stage, name, records)
        _write_ambiguous(dest, outcome.ambiguous)
        summary = {
            "run": absolute_name(run.path),
            "source": absolute_name(metadata),
            "files": len(paths),
            "key": names,
            "key_types": note_types(known_types, types),
            "ambiguous": ambiguous,
            **outcome.counts,
        }
        folder.finish(summary, keep_stages=False)
        warn_of_few(summary)
        return summary


def _suffixes(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the endings of the files, the first file's first."""
    found = [path[-len(ending) :] for path in paths for ending in _ENDINGS if _ends(path, ending)]
    first = found[0] if found and paths[0].endswith(found[0]) else _ENDINGS[0]
    return (first, *sorted({*found} - {first}))


def _ends(path: str, ending: str) -> bool:
    return path.lower().endswith(ending)


def _find_files(metadata: str | AnyPath) -> list[str]:
    """Return the files of a folder's ``metadata``, or its own; one file; those of a pattern."""
    text = absolute_name(metadata)
    folder = as_path(text)
    if any(sign in text for sign in "*?[") and not exists(folder):
        return find_matching(as_path("."), text)
    if is_file(folder):
        return [text]
    for place in (folder / "metadata", folder):
        found = [name for name in list_files(place) or () if name.lower().endswith(_ENDINGS)]
        if found:
            return [str(place / name) for name in natsorted(found, alg=ns.PATH)]
    if list_files(folder) is None:
        raise InputError(f"{metadata}: no such file or folder.")
    raise InputError(f"{metadata}: expected {', '.join(_ENDINGS)} files, found none.")


def _with_key(path: str, names: Sequence[str], run: FinishedRun) -> ParquetFile | CsvFile:
    """Return a file with what the columns of the key are called in it."""
    columns = open_source(path).columns()
    others = {"url": run.read.url_column, "caption": run.read.caption_column}
    found = []
    for name in names:
        other = others.get(name)
        found.append(named_column(name, columns, path, [other] if other else []))
    return open_source(path, tuple(found))


def _write_ambiguous(dest: AnyPath, paths: Sequence[AnyPath]) -> None:
    """Write the ambiguous keys of all buckets into one file."""
    with write_aside(dest / _AMBIGUOUS, durable=True) as temporary, ParquetOut(temporary) as out:
        for path in paths:
            try:
                with open_table(str(path)) as file, damage(str(path)):
                    out.write(file.read())
            except DamagedError as error:
                raise InputError(f"{error} Run the same command again.") from error
