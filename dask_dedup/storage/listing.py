"""What is in a folder, on a disk or in an object store; which files match a pattern."""

from __future__ import annotations

import os
from glob import escape, glob

from dask_dedup.paths import AnyPath, as_path, is_remote, refuse_secrets, store_errors
from dask_dedup.storage.objects import file_system, key_of

__all__ = ["glob_files", "has_files", "list_files", "names_in"]


def list_files(folder: AnyPath) -> list[str] | None:
    """Return the names of the files of a folder, hidden ones left out.

    None where there is no such folder.

    Raises
    ------
    OSError
        The store refuses, or has no such bucket.
    """
    if not is_remote(folder):
        if not os.path.isdir(folder):  # where Path.is_dir would raise, of a name too long, say
            return None
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_file()]
        return [name for name in found if not name.startswith(".")]
    system, key = file_system(folder), key_of(folder)
    with store_errors(folder):
        try:
            entries = system.ls(key, detail=True)
        except FileNotFoundError as error:
            if "bucket" in str(error):
                raise
            return None
    if len(entries) == 1 and entries[0]["type"] == "file" and entries[0]["name"] == key.strip("/"):
        return None  # a file
    names = [str(e["name"]).rsplit("/", 1)[-1] for e in entries if e["type"] == "file"]
    return [name for name in names if name and not name.startswith(".")]


def names_in(folder: AnyPath) -> list[str] | None:
    """Return the names of all that is in a folder, sorted; None where there is no such folder.

    Raises
    ------
    OSError
    """
    if not is_remote(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else None
    if list_files(folder) is None:
        return None
    with store_errors(folder):
        entries = file_system(folder).ls(key_of(folder), detail=False)
    inside = {str(name).strip("/") for name in entries} - {key_of(folder).strip("/")}
    return sorted(name.rsplit("/", 1)[-1] for name in inside)


def has_files(folder: AnyPath) -> bool:
    """Return whether there is such a folder; False where a store refuses."""
    try:
        return list_files(folder) is not None
    except OSError:
        return False


def glob_files(base: AnyPath, pattern: str) -> list[str]:
    """Return the files that match a pattern, which may be relative to ``base``.

    In a store, a base that holds ``*?[`` itself is listed from above these on.
    """
    if not (pattern.startswith("/") or "://" in pattern):
        pattern = f"{escape(str(base).rstrip('/'))}/{pattern}"
    if not is_remote(pattern):
        return [path for path in glob(pattern, recursive=True) if os.path.isfile(path)]
    refuse_secrets(pattern)
    bare = pattern.partition("://")
    bucket = as_path(f"{bare[0]}://{bare[2].partition('/')[0]}")
    assert is_remote(bucket), bucket
    system = file_system(bucket)
    with store_errors(bucket):
        found = system.glob(system._strip_protocol(pattern), detail=True)
    return [system.unstrip_protocol(name) for name, e in found.items() if e["type"] == "file"]
