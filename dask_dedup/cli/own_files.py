"""Files that a command may replace without being asked: those of its own kind alone."""

from __future__ import annotations

from collections.abc import Callable

from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.objects import exists, is_file, read_range, size_of

__all__ = ["refuse_other_file", "refuse_other_page", "refuse_other_picture"]

_READ_BYTES = 4096


def refuse_other_picture(path: AnyPath) -> None:
    """Raise SettingsError where a file is there that is no PNG."""
    refuse_other_file(path, lambda content: content.startswith(b"\x89PNG"), "no PNG")


def refuse_other_page(path: AnyPath) -> None:
    """Raise SettingsError where a file is there that is no page of this tool."""
    mark = b'<meta name="generator" content="dask_dedup report">'
    refuse_other_file(path, lambda content: mark in content, "no page of a run")


def refuse_other_file(path: AnyPath, is_own: Callable[[bytes], bool], what: str) -> None:
    """Raise SettingsError where a file is there that does not begin as those of one's own do.

    Parameters
    ----------
    path : AnyPath
    is_own : callable
        Takes the first 4,096 bytes, or fewer. An empty file counts as one's own.
    what : str
        Said of another file.
    """
    if not exists(path):
        return
    content = _first_bytes(path) if is_file(path) else b"?"
    if content and not is_own(content):
        raise SettingsError(
            f"{path}: is there already, and is {what}: it would be lost. Name another file."
        )


def _first_bytes(path: AnyPath) -> bytes:
    if is_remote(path):
        return read_range(path, 0, min(_READ_BYTES, size_of(path)))
    with open(path, "rb") as file:
        return file.read(_READ_BYTES)
