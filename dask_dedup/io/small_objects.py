"""Small objects of a store, as locks are made of: created by one alone, written at a time."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

from dask_dedup.places import store_errors

__all__ = ["create", "modified_at", "store_time", "write"]

# The place of an object is an `upath.UPath`, whose ``fs`` is fsspec's, and ``path`` the key.


def create(place: Any, content: bytes) -> None:
    """Put an object that is not there yet.

    Raises
    ------
    FileExistsError
    """
    with store_errors(place):
        place.fs.pipe_file(place.path, content, mode="create")


def write(place: Any, content: bytes) -> None:
    """Put an object of a few bytes, over what is there."""
    with store_errors(place):
        place.fs.pipe_file(place.path, content)


def modified_at(place: Any) -> float:
    """Return when an object was written, by its store's clock: seconds since 1970.

    Raises
    ------
    FileNotFoundError
    """
    with store_errors(place):
        return place.fs.modified(place.path).timestamp()


def store_time(place: Any) -> float:
    """Return the time by the clock of an object's store, as S3 tells it in its answers.

    Of a store that does not, our own.
    """
    system = place.fs
    if not hasattr(system, "call_s3"):
        return time.time()
    with store_errors(place):
        bucket, key, _ = system.split_path(place.path)
        answer = system.call_s3("head_object", Bucket=bucket, Key=key)
        date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return parsedate_to_datetime(date).timestamp()
