"""Export of samples: the tars that img2dataset has written, without the rows that are dropped."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from natsort import natsorted, ns

from dask_dedup.data.file_versions import check_same, versions_of
from dask_dedup.data.part_names import names_of_files
from dask_dedup.data.scan import find_matching
from dask_dedup.errors import InputError, SettingsError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.results.application import STAGES, UNMATCHED_FOLDERS, Application
from dask_dedup.results.finished_run import FinishedRun
from dask_dedup.results.result_folder import ResultFolder
from dask_dedup.results.row_keys import named_column
from dask_dedup.results.tar_files import SampleTar, expand_braces
from dask_dedup.runtime.executor import Execute, Progress
from dask_dedup.storage.files import digest_of
from dask_dedup.storage.foreign_content import refuse_inputs_inside
from dask_dedup.storage.listing import list_files
from dask_dedup.storage.objects import exists, is_file

__all__ = ["COUNTED", "TAR_FOLDER", "TAR_STAGES", "export_tars", "find_tars"]

TAR_FOLDER, TAR_STAGES = "webdataset", STAGES
#: The key that is counted, and in no column.
COUNTED = "{shard}{index}"


def export_tars(
    run: FinishedRun,
    dest: AnyPath,
    folder_type: type[ResultFolder],
    what: str,
    shards: str,
    key: str | None,
    samples_per_shard: int,
    overwrite: bool,
    execute: Execute,
    progress: Progress,
) -> dict[str, Any]:
    """Write tars with the samples of the rows that stay, or of the others; see `export`.

    A sample's key is compared with its folder where one of the column's has one, else without.
    Samples that no row of the result stands for are kept, and counted; so are those of a key that
    stands for rows of both kinds.
    """
    paths = find_tars(shards)
    counted = key == COUNTED
    if counted and samples_per_shard < 1:
        raise SettingsError(f"samples_per_shard: expected at least 1, got {samples_per_shard}.")
    found: tuple[str, ...] | int = samples_per_shard
    if not counted:
        where = f"the result {run.path}"
        found = (named_column(key or "key", run.user_columns(), where),)
    names = (*folder_type.possible_folders, "stages")
    refuse_inputs_inside(dest, names, [*paths, run.clusters_path(run.names[0])])
    versions = versions_of(paths)
    settings = {
        "what": what,
        "format": TAR_FOLDER,
        "key": found if isinstance(found, int) else list(found),
    }
    fingerprint = digest_of({"run": run.identity, "files": versions})
    folders = (TAR_FOLDER, *UNMATCHED_FOLDERS)
    with folder_type(dest, settings, fingerprint, folders, TAR_STAGES, overwrite) as folder:
        if not folder.begin_unless_finished():
            return folder.read_summary()
        application = Application(
            run,
            [SampleTar(path) for path in paths],
            names_of_files(paths, ".tar"),
            TAR_FOLDER,
            found,
            what=what,
            are_names=True,
        )
        outcome = application.do(folder, execute, progress, versions)
        check_same(versions)
        for stage, name, records in outcome.results:
            folder.publish(stage, name, records)
        counts = dict(outcome.counts)
        summary = {
            "run": absolute_name(run.path),
            "dataset": run.summary["dataset"],
            "what": what,
            "format": TAR_FOLDER,
            "rows": counts.pop("rows"),
            "source_rows": run.rows,
            "files": len(paths),
            "key": key or "key",
            "samples": counts.pop("metadata_rows"),
            "samples_by_verdict": counts.pop("metadata"),
            **counts,
        }
        folder.finish(summary, keep_stages=False)
        return summary


def find_tars(shards: str) -> list[str]:
    """Return the tars of a folder, or those that a name with ``*`` or braces stands for.

    Raises
    ------
    InputError
        There is none, or one of those in braces is missing.
    """
    text = absolute_name(shards)
    folder = as_path(text)
    is_there = False
    with suppress(OSError):  # a list in braces can be longer than any name
        is_there = exists(folder)
    if "{" in text and not is_there:
        paths = expand_braces(text)
        missing = [path for path in paths if not is_file(as_path(path))]
        if missing:
            raise InputError(f"{missing[0]}: no such file ({len(missing):,} of {len(paths):,}).")
        return paths
    if any(sign in text for sign in "*?[") and not is_there:
        return find_matching(as_path("."), text)
    if is_file(folder):
        return [text]
    tars = [name for name in list_files(folder) or () if name.endswith(".tar")]
    if not tars:
        raise InputError(f"{shards}: expected a folder of .tar files, found none.")
    return [str(folder / name) for name in natsorted(tars, alg=ns.PATH)]
