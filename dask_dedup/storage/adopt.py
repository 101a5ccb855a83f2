"""Results of one run's folder taken over into another's: linked on one disk, else copied."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable

from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.checksums import check_file
from dask_dedup.storage.files import TEMPORARY_PREFIX, sync, write_aside
from dask_dedup.storage.objects import file_system, key_of, local_copy, make_folder
from dask_dedup.storage.results_list import Results, remove_others

__all__ = ["adopt_results"]


def adopt_results(source: AnyPath, target: AnyPath, names: Iterable[str]) -> None:
    """Take result folders over, with their entries in ``results.json``; what is there is replaced.

    Files are never changed in place, so that a hard link is as good as a copy: each folder is
    whole without the other.

    Parameters
    ----------
    source, target : AnyPath
        OUT of a finished run; another one, which is claimed by the caller.
    names : iterable of str
        Of the folders.

    Raises
    ------
    DamagedError
        A file is missing, or not what was written.
    """
    theirs, own = Results(source), Results(target)
    for name in names:
        digest, files = theirs.entry(name)
        whole = {file for file in files if own.has_file(f"{name}/{file}", digest, files[file])}
        own.add_folder(name, digest, files)
        make_folder(target / name)
        for file in sorted(set(files) - whole):
            _take(source / name / file, target / name / file)
            check_file(target / name / file, files[file])
        remove_others(target / name, files)
        if not is_remote(target):
            sync(target / name)


def _take(source: AnyPath, target: AnyPath) -> None:
    """Link or copy one file, whole or not at all."""
    if (
        is_remote(source)
        and is_remote(target)
        and type(file_system(source)) is type(file_system(target))
    ):
        file_system(target).copy(key_of(source), key_of(target))
        return
    if not is_remote(source) and not is_remote(target):
        temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{target.name}")
        try:
            os.link(source, temporary)
        except OSError:  # another disk, or one without links
            pass
        else:
            os.replace(temporary, target)
            temporary.unlink(missing_ok=True)  # a link onto its own file is not moved
            return
    with write_aside(target, durable=True) as temporary:
        shutil.copyfile(local_copy(source), temporary)
