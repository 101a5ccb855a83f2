"""Small objects, as locks are made of: created by one alone; and when files were written."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from dask_dedup.paths import AnyPath, RemotePath, is_remote, store_errors
from dask_dedup.storage.listing import list_files

__all__ = ["create", "modified_at", "store_time", "write", "written_at"]


def create(path: RemotePath, content: bytes) -> None:
    """Put an object that is not there yet.

    Raises
    ------
    FileExistsError
    """
    with store_errors(path):
        path.fs.pipe_file(path.path, content, mode="create")


def write(path: RemotePath, content: bytes) -> None:
    """Put an object of a few bytes, over what is there."""
    with store_errors(path):
        path.fs.pipe_file(path.path, content)


def modified_at(path: RemotePath) -> float:
    """Return when an object was written, by its store's clock: seconds since 1970.

    Raises
    ------
    FileNotFoundError
    """
    with store_errors(path):
        return path.fs.modified(path.path).timestamp()


def store_time(path: RemotePath) -> float:
    """Return the time by the clock of an object's store, as S3 gives it in its answers.

    For other stores it is the time of this machine.
    """
    system = path.fs
    if not hasattr(system, "call_s3"):
        return time.time()
    with store_errors(path):
        bucket, key, _ = system.split_path(path.path)
        answer = system.call_s3("head_object", Bucket=bucket, Key=key)
        date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return parsedate_to_datetime(date).timestamp()


def written_at(folder: AnyPath, suffix: str) -> list[float]:
    """Return when the files of a folder whose names end so were written: seconds since 1970."""
    if not is_remote(folder):
        return [path.stat().st_mtime for path in folder.glob(f"*{suffix}")]
    names = [name for name in list_files(folder) or [] if name.endswith(suffix)]
    return [modified_at(folder / name) for name in names]
