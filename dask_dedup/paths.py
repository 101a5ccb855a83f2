"""Places: local paths and URLs of object stores under one type.

A local path is a `pathlib.Path`. A URL such as ``s3://bucket/folder`` becomes fsspec's pathlib
layer, an ``upath.UPath``: not a subclass, but with the methods that are used here, so that both are
annotated as Path. Options of a store (endpoint, region, credentials) come from its own environment
variables and files, never from the URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from dask_dedup.errors import DedupError, SettingsError, StoreError

__all__ = ["as_place", "is_remote", "refuse_secrets", "refuse_undecodable", "without_secrets"]
__all__ = [
    "absolute_name",
    "as_place",
    "is_remote",
    "read_text",
    "refuse_secrets",
    "store_errors",
    "without_secrets",
    "words_of",
]

_LOCAL = ("file://", "local://")
_CUT_URL = re.compile("[a-z][a-z0-9]+:/")
_NAMES = "(?:sig|token|secret|passw|credential|key)"
_SECRET_NAMES = re.compile(_NAMES, re.IGNORECASE)
_SECRETS = (
    (re.compile(r"(?<=://)[^/@\s'\"]+@"), ""),
    (re.compile(rf"(?i)([?&][\w-]*{_NAMES}[\w-]*=)[^&\s'\"]+"), r"\1…"),
)


def as_place(text: str | os.PathLike) -> Path:
    """Return the path of a local name or of a URL.

    Raises
    ------
    SettingsError
        The URL holds credentials or has lost a slash, no package is installed that speaks its
        protocol, or the name is not UTF-8.
    """
    if not isinstance(text, str | Path):
        return cast(Path, text)  # a UPath already
    refuse_undecodable(str(text) if is_remote(text) else os.path.abspath(text))
    name = os.fspath(text)
    for prefix in _LOCAL:
        name = name.removeprefix(prefix)
    if "://" not in name:
        if _CUT_URL.match(name) and not os.path.lexists(name.partition("/")[0]):
            raise SettingsError(
                f"{name}: expected a path or a URL with two slashes; pathlib.Path takes one away: "
                f"give a URL as text."
            )
        return text if isinstance(text, Path) else Path(name)
    refuse_secrets(name)
    try:
        from upath import UPath  # a quarter of a second that local runs do not spend

        place = UPath(name, use_listings_cache=False)  # what other processes write must be seen
        place.fs  # noqa: B018  finds the package
    except (ImportError, ValueError) as error:
        protocol = name.partition("://")[0]
        extra = "'dask_dedup[s3]'"
        if protocol != "s3":
            extra = "universal_pathlib and the package that fsspec names for it"
        raise SettingsError(
            f"{name}: no package is installed for URLs of {protocol}:// ({words_of(error)}). "
            f"Install it: pip install {extra}."
        ) from error
    return cast(Path, place)


def is_remote(place: str | os.PathLike) -> bool:
    """Return whether a place, or its name, is that of a store that is no local disk."""
    return "://" in place if isinstance(place, str) else not isinstance(place, Path)


def refuse_undecodable(name: str) -> None:
    """Raise SettingsError where a name of a file is not UTF-8: Arrow and Dask cannot take it."""
    if name.isascii():
        return
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"{name}: the name is not UTF-8 (an old disk's, in Latin-1?), which parquet and JSON "
            f"cannot hold. Rename it, or read it through a link of another name (ln -s)."
        ) from error


def absolute_name(place: str | os.PathLike) -> str:
    """Return the name of a place that holds in any folder: a URL is one already."""
    return str(place) if is_remote(place) else os.path.abspath(place)


def read_text(place: str | os.PathLike) -> str:
    """Return a small text file, wherever it lies.

    Raises
    ------
    OSError, UnicodeDecodeError
    """
    place = as_place(place)
    with store_errors(place):
        return place.read_bytes().decode("utf-8")


@contextmanager
def store_errors(place: Path) -> Iterator[None]:
    """Turn the errors of a store's client into StoreError; each client has its own."""
    try:
        yield
    except (FileExistsError, FileNotFoundError, DedupError):
        raise
    except Exception as error:
        if not is_remote(place):
            raise
        raise StoreError(None, words_of(error), str(place)) from error


def words_of(error: BaseException) -> str:
    """Return what an error says, in one line, without credentials."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return without_secrets(" ".join(str(said).split())).rstrip(".")


def refuse_secrets(url: str) -> None:
    """Raise SettingsError where a URL holds credentials: they would be written into files."""
    parts = urlsplit(url)
    named: list[Any] = [name for name, _ in parse_qsl(parts.query) if _SECRET_NAMES.search(name)]
    if "@" in parts.netloc or named:
        raise SettingsError(
            f"{without_secrets(url)}: holds credentials, which would end in settings and reports. "
            f"Leave them to the store's own environment variables or files, such as "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )


def without_secrets(text: str) -> str:
    """Return a text without the credentials of the URLs in it."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
