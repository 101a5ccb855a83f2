"""Export: the rows of a finished run that stay, or the others, as files that other tools read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from dask_dedup.data.part_names import names_of_files
from dask_dedup.errors import DamagedError, InputError, OutputError, SettingsError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.results.application import UNMATCHED_FOLDERS
from dask_dedup.results.export_input import FOLDERS, write_input
from dask_dedup.results.export_tables import ENDINGS, write_tables
from dask_dedup.results.export_webdataset import TAR_FOLDER, export_tars
from dask_dedup.results.finished_run import FinishedRun, cluster_name, open_finished
from dask_dedup.results.kept_rows import CHOICES
from dask_dedup.results.merge_columns import SUFFIX
from dask_dedup.results.result_folder import ResultFolder
from dask_dedup.results.run_dataset import open_both_modalities
from dask_dedup.results.selected_rows import Choice, count_selected, count_witnesses, cut_files
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks
from dask_dedup.storage.foreign_content import refuse_inputs_inside
from dask_dedup.storage.objects import open_parquet_source

if TYPE_CHECKING:
    from dask_dedup.data.dataset import Dataset
    from dask_dedup.data.parts import Part

__all__ = ["FORMATS", "ExportFolder", "export"]

#: In which an export can be written.
FORMATS = ("input", *ENDINGS, "webdataset")
_COUNT, _WEIGH, _WRITE = "count", "weigh", "export"  # stages
_WEIGH_TASKS = 64  # at most: each task that writes reads some rows out of the files of all


class ExportFolder(ResultFolder):
    """The output folder of an export: see `ResultFolder`."""

    state_name = "export.json"
    own_names = r".*\.(npy|parquet|csv|tar)"
    possible_folders = (*FOLDERS, *ENDINGS, TAR_FOLDER, *UNMATCHED_FOLDERS)


@dataclass(frozen=True)
class _Plan:
    """What an export writes: folders, and what each task is called with."""

    folders: tuple[str, ...]
    choice: Choice
    parts: list[tuple[str, Any]]
    names: list[dict[str, str]]
    shard_names: dict[str, str]
    column_type: Any = None


def export(
    out: str | AnyPath,
    dest: str | AnyPath,
    *,
    what: str = "kept",
    format: str = "input",
    columns: Sequence[str] | None = None,
    shard_rows: int | None = None,
    shards: str | AnyPath | None = None,
    key: str | None = None,
    samples_per_shard: int = 10_000,
    dataset: str | AnyPath | None = None,
    overwrite: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the rows of a finished run that stay, or the others; computes.

    Parameters
    ----------
    out : path or URL
        Of the run.
    dest : path or URL
        A new or empty folder, or one in which the same export was interrupted: it goes on there.
    what : str
        ``kept``, ``dropped`` or ``all`` rows.
    format : str
        ``input``: metadata and embeddings, a data set again (``metadata``, ``img_emb``,
        ``text_emb``; of a list column: in the metadata files), with the names of the input's
        columns. ``parquet``, ``csv``: metadata. ``ids``: row ids as ``.npy``, int64.
        ``img2dataset``: parquet with ``url`` and ``caption``; rows without URL are left out and
        counted. ``webdataset``: the samples of the tars that img2dataset has written.
    columns : sequence of str, optional
        The user's columns that are written; by default all that the run has carried.
    shard_rows : int, optional
        Rows of a file; by default a file for each file of the input.
    shards : path, URL or pattern, optional
        For ``webdataset``, its tars: a folder, or a name with ``*`` or ``{00000..00004}``.
    key : str, optional
        For ``webdataset``, the column that holds the samples' keys (``key`` by default), with the
        folders that the tars have (``a/000000001``) or all without, if that is unambiguous; or
        ``{shard}{index}``: they are counted as img2dataset does, which was given the files of
        metadata in their order.
    samples_per_shard : int
        For ``{shard}{index}``, img2dataset's ``number_sample_per_shard``.
    dataset : path or URL, optional
        For ``input``, where the data set lies now; by default where it was when the run read it.
    overwrite : bool
        Begin anew, whatever an earlier export left in ``dest``.
    execute, progress
        See `dask_dedup.runtime.executor`.

    Returns
    -------
    dict
        The content of ``dest/summary.json``: ``rows`` written, and of the result ``source_rows``.

    Raises
    ------
    OutputError
        ``out`` is no finished run, its clusters are damaged, or ``dest`` holds something else.
    InputError
        The data set has changed since the run.
    SettingsError

    Notes
    -----
    Before the user's columns stand ``row_id`` and ``cluster_id``; of rows that stay,
    ``duplicate_count``: the rows that it stands for, as a weight: itself, and those whose witness
    it is (the counts add up to all rows, but for dropped ones without a witness); of dropped rows
    ``witness_row_id`` and ``witness_similarity``: the row that stays in their place, and the cosine
    of the two. With ``all`` also ``is_kept``. A user's column with such a name gets the prefix
    ``source_``.

    A task holds the chosen metadata of one part and 64 MB of its embeddings.
    """
    progress = progress or NoProgress()
    _check(what, format, shard_rows, shards, key)
    run, dest = open_finished(out, ["clusters"]), as_path(dest)
    run.refuse_inside(dest)
    inside = (*ExportFolder.possible_folders, "stages")
    refuse_inputs_inside(dest, inside, [run.clusters_path(run.names[0])])
    if format == "webdataset":
        assert shards is not None
        return export_tars(
            run, dest, ExportFolder, what, str(shards), key, samples_per_shard, overwrite, execute,
            progress,
        )  # fmt: skip
    data = open_both_modalities(run, dataset) if format == "input" else None
    plan = _plan(run, data, what, format, columns)
    if data is not None:
        refuse_inputs_inside(dest, inside, data.paths)
    settings = {
        "what": what,
        "format": format,
        "columns": list(plan.choice.columns),
        "shard_rows": shard_rows,
    }
    with ExportFolder(
        dest, settings, run.identity, plan.folders, (_COUNT, _WEIGH, _WRITE), overwrite
    ) as folder:
        if not folder.begin_unless_finished():
            return folder.read_summary()
        return _write(folder, run, plan, data, execute, progress)


def _check(what: str, format: str, shard_rows: int | None, shards: object, key: str | None) -> None:
    if what not in CHOICES:
        raise SettingsError(f"what: expected {', '.join(CHOICES)}, got {what!r}.")
    if format not in FORMATS:
        raise SettingsError(f"format: expected {', '.join(FORMATS)}, got {format!r}.")
    if shard_rows is not None and shard_rows < 1:
        raise SettingsError(f"shard_rows: expected at least 1, got {shard_rows}.")
    if (shards is not None) != (format == "webdataset"):
        raise SettingsError(
            "format webdataset filters the tars that img2dataset has written: name them with "
            "shards (--shards), and only with this format."
        )
    if key is not None and format != "webdataset":
        raise SettingsError("key: only samples of format webdataset are found by a key.")


def _plan(
    run: FinishedRun, data: Dataset | None, what: str, format: str, columns: Sequence[str] | None
) -> _Plan:
    """Return what is written; reads schemas only."""
    there = run.user_columns()
    names: dict[str, str] = {}
    if data is not None:
        names = _names_in_input(data)
        names |= {name: name for name in there if name.endswith(SUFFIX) and name not in names}
        there = [name for name in there if name in names]
    elif format == "img2dataset":
        columns = [*dict.fromkeys(["url", "caption", *(columns or ())])]
    elif format == "ids":
        columns = []
    chosen = tuple(there if columns is None else _find_columns(run, columns, there, names))
    choice = Choice(what, chosen, names)
    if data is None:
        folder, ending = format, ENDINGS[format]
        return _Plan(
            (folder,),
            choice,
            [(run.clusters_path(name), None) for name in run.names],
            [{folder: f"{name.removesuffix('.parquet')}{ending}"} for name in run.names],
            {folder: f"part-{{:05d}}{ending}"},
        )
    filled = data.filled_parts
    files = {"metadata": _metadata_names(filled)}
    column = filled[0].embeddings.column
    if column is None:
        own = "text_emb" if data.modality == "text" else "img_emb"
        files[own] = names_of_files([part.embeddings.path for part in filled], ".npy")
        if own == "img_emb" and all(part.text_embeddings is not None for part in filled):
            paths = [part.text_embeddings.path for part in filled if part.text_embeddings]
            files["text_emb"] = names_of_files(paths, ".npy")
    return _Plan(
        tuple(files),
        choice,
        [(run.clusters_path(cluster_name(part.index)), part) for part in filled],
        [{name: own[i] for name, own in files.items()} for i in range(len(filled))],
        {name: f"{name}_{{:05d}}{'.npy' if name != 'metadata' else '.parquet'}" for name in files},
        None if column is None else _type_of(filled, column),
    )


def _metadata_names(parts: Sequence[Part]) -> list[str]:
    """Return the names of the files of metadata: those of the embeddings where there were none."""
    if parts[0].metadata_path:
        return names_of_files([part.metadata_path for part in parts], ".parquet")
    names = names_of_files([part.embeddings.path for part in parts], ".npy")
    return [f"{name.removesuffix('.npy')}.parquet" for name in names]


def _names_in_input(data: Dataset) -> dict[str, str]:
    """Return for each column of the clusters its name in the input; without those of no file."""
    pairs = zip(data.columns.schema.names, data.columns.sources, strict=True)
    return {name: sources[0] for name, sources in pairs if sources}


def _find_columns(
    run: FinishedRun, wanted: Sequence[str], there: Sequence[str], names: Mapping[str, str]
) -> list[str]:
    """Return columns by the names that the clusters have, or the input."""
    own = {source: name for name, source in names.items()}
    found = [name if name in there else own.get(name, name) for name in wanted]
    for name, one in zip(wanted, found, strict=True):
        if one not in there:
            known = ", ".join(there) or "none of the user's: its data set has no metadata"
            raise SettingsError(f"columns: {run.path} has no column {name!r}; it has {known}.")
    return list(dict.fromkeys(found))


def _type_of(parts: Sequence[Any], column: str) -> Any:
    """Return the type of the list column in the first file that can be read."""
    whole = next((part for part in parts if part.embeddings.problem is None), None)
    if whole is None:
        raise InputError(f"{parts[0].embeddings.path}: no file of embeddings can be read.")
    with pq.ParquetFile(open_parquet_source(whole.embeddings.path)) as file:
        return file.schema_arrow.field(column).type


def _expected(run: FinishedRun, what: str) -> int:
    """Return how many rows will be written."""
    dropped = run.summary.get("dropped", run.summary["duplicates"])
    return {"kept": run.rows - dropped, "dropped": dropped, "all": run.rows}[what]


def _weigh(
    folder: ExportFolder, run: FinishedRun, plan: _Plan, execute: Execute, progress: Progress
) -> tuple[str, ...]:
    """Count for how many rows each row stays; return the files."""
    stage, paths = folder.stage(_WEIGH, {}), [path for path, _ in plan.parts]
    step = -(-len(paths) // _WEIGH_TASKS)
    tasks = {
        f"weigh-{i:05d}": (paths[start : start + step], stage.folder / f"weigh-{i:05d}.parquet")
        for i, start in enumerate(range(0, len(paths), step))
    }
    progress.start(_WEIGH, run.rows)
    records = stage.run(
        count_witnesses, tasks, execute, lambda record: progress.advance(record["rows"])
    )
    progress.finish()
    return tuple(str(stage.folder / record["file"]) for record in records)


def _write(
    folder: ExportFolder,
    run: FinishedRun,
    plan: _Plan,
    data: Dataset | None,
    execute: Execute,
    progress: Progress,
) -> dict[str, Any]:
    choice, shard_rows = plan.choice, folder.settings["shard_rows"]
    if choice.what != "dropped" and folder.settings["format"] != "ids":
        choice = replace(choice, counts=_weigh(folder, run, plan, execute, progress))
    counts = None
    if shard_rows is not None or data is None:
        progress.start(_COUNT, run.rows)
        counting = folder.stage(_COUNT, {"what": choice.what}).run(
            count_selected,
            {f"part-{i:05d}": (path, choice.what) for i, (path, _) in enumerate(plan.parts)},
            execute,
            lambda record: progress.advance(record["rows"]),
        )
        progress.finish()
        counts = [record["selected"] for record in counting]
    tasks = cut_files(plan.parts, plan.names, counts, shard_rows, plan.shard_names)
    stage = folder.stage(_WRITE, folder.settings)
    progress.start(_WRITE, _expected(run, choice.what) if counts is None else sum(counts))
    format = folder.settings["format"]
    call: Any = write_tables
    arguments = [(files, stage.folder / format, format, choice) for files in tasks]
    if data is not None:
        call = write_input
        arguments = [(files, stage.folder, choice, plan.column_type) for files in tasks]
    try:
        records = stage.run(
            call,
            {f"files-{i:05d}": given for i, given in enumerate(arguments)},
            execute,
            lambda record: progress.advance(record["rows"]),
        )
    except DamagedError as error:
        raise OutputError(
            f"{str(error).rstrip('.')}. Put the file back, or run again with --overwrite."
        ) from error
    progress.finish()
    if data is not None:
        data.check_unchanged(content=True)
    for name in plan.folders:
        folder.publish(stage, name, records)
    rows = sum(record["rows"] for record in records)
    without_url = sum(record.get("without_url", 0) for record in records)
    assert counts is None or sum(counts) == rows + without_url
    summary = {
        "run": absolute_name(run.path),
        "dataset": run.summary["dataset"],
        "what": choice.what,
        "format": format,
        "rows": rows,
        "source_rows": run.rows,
        **({"without_url": without_url} if format == "img2dataset" else {}),
        "files": sum(map(len, tasks)),
        "columns": list(choice.columns),
    }
    folder.finish(summary, keep_stages=False)
    return summary
