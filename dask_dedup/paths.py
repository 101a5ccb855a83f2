"""Local paths and URLs of object stores under one type, `AnyPath`.

A local path is a `pathlib.Path`. A URL such as ``s3://bucket/folder`` becomes fsspec's pathlib
layer, an ``upath.UPath``, of which `RemotePath` declares what may be used. Whatever else is done
with an `AnyPath` (``open``, ``os``, ``np.load``, ``rename``) is an error for mypy, unless
`is_remote` has distinguished the two. Options of a store (endpoint, region, credentials) come from
its own environment variables and files, never from the URL.
"""

# ruff: noqa: D102  the methods of RemotePath are those of pathlib

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload
from urllib.parse import parse_qsl, urlsplit

from dask_dedup.errors import DedupError, SettingsError, StoreError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "AnyPath",
    "RemotePath",
    "absolute_name",
    "as_path",
    "is_inside",
    "is_remote",
    "read_text",
    "refuse_secrets",
    "refuse_undecodable",
    "store_errors",
    "without_secrets",
    "words_of",
]

_LOCAL = ("file://", "local://")
_CUT_URL = re.compile("[a-z][a-z0-9+.-]+:/")
_NAMES = "(?:sig|token|secret|passw|credential|key)"
_SECRET_NAMES = re.compile(_NAMES, re.IGNORECASE)
_SECRETS = (
    (re.compile(r"(?<=://)[^/@\s'\"]+@"), ""),
    (re.compile(rf"(?i)([?&][\w-]*{_NAMES}[\w-]*=)[^&\s'\"]+"), r"\1…"),
)


class RemotePath(Protocol):
    """What of an ``upath.UPath`` may be used: the members that do the same as a local path's."""

    @property
    def fs(self) -> Any:
        """The store's client, an ``fsspec.AbstractFileSystem``."""

    @property
    def path(self) -> str:
        """The name in the store."""

    @property
    def name(self) -> str:
        """The last part of the path."""

    @property
    def suffix(self) -> str:
        """The name's ending, with its dot."""

    @property
    def parent(self) -> RemotePath:
        """The path without its last part."""

    def __truediv__(self, name: str, /) -> RemotePath: ...
    def __hash__(self) -> int: ...
    def with_name(self, name: str, /) -> RemotePath: ...
    def with_suffix(self, suffix: str, /) -> RemotePath: ...
    def exists(self) -> bool: ...
    def is_dir(self) -> bool: ...
    def is_file(self) -> bool: ...
    def iterdir(self) -> Iterator[RemotePath]: ...
    def glob(self, pattern: str, /) -> Iterator[RemotePath]: ...
    def rglob(self, pattern: str, /) -> Iterator[RemotePath]: ...
    def unlink(self, missing_ok: bool = False) -> None: ...
    def read_bytes(self) -> bytes: ...


#: A path on a disk or in a store.
AnyPath: TypeAlias = Path | RemotePath


def as_path(text: str | os.PathLike | RemotePath) -> AnyPath:
    """Return the path of a local name or of a URL.

    Raises
    ------
    SettingsError
        The URL holds credentials or has lost a slash, no package is installed that speaks its
        protocol, or the name is not UTF-8.
    """
    if not isinstance(text, str | os.PathLike):
        return text
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
        # A quarter of a second that local runs do not spend.
        from fsspec.registry import known_implementations
        from upath import UPath

        path = UPath(name, use_listings_cache=False)  # what other processes write must be seen
        path.fs  # noqa: B018  finds the package
    except (ImportError, ValueError) as error:
        protocol = name.partition("://")[0]
        if isinstance(error, ValueError) and protocol in known_implementations:
            raise SettingsError(
                f"{name}: the package for URLs of {protocol}:// does not take it "
                f"({words_of(error)})."
            ) from error
        extra = "'dask_dedup[s3]'"
        if protocol != "s3":
            extra = "universal_pathlib and the package that fsspec names for it"
        raise SettingsError(
            f"{name}: no package is installed for URLs of {protocol}:// ({words_of(error)}). "
            f"Install it: pip install {extra}."
        ) from error
    return path


@overload
def is_remote(path: AnyPath) -> TypeIs[RemotePath]: ...
@overload
def is_remote(path: str | os.PathLike | RemotePath) -> bool: ...
def is_remote(path: str | os.PathLike | RemotePath) -> bool:
    """Return whether a path, or its name, is that of a store that is no local disk."""
    return "://" in path if isinstance(path, str) else not isinstance(path, os.PathLike)


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


def absolute_name(path: str | os.PathLike | RemotePath) -> str:
    """Return the name of a path that holds in any folder: a URL is one already."""
    if is_remote(path) or not isinstance(path, str | os.PathLike):
        return str(path)
    return os.path.abspath(path)


def is_inside(path: AnyPath, folder: AnyPath) -> bool:
    """Return whether a place is a folder, or lies in it."""
    if is_remote(path) or is_remote(folder):
        return f"{str(path).rstrip('/')}/".startswith(f"{str(folder).rstrip('/')}/")
    return folder.resolve() in (path.resolve(), *path.resolve().parents)


def read_text(path: str | os.PathLike | RemotePath) -> str:
    """Return a small text file, wherever it lies.

    Raises
    ------
    OSError, UnicodeDecodeError
    """
    path = as_path(path)
    with store_errors(path):
        return path.read_bytes().decode("utf-8")


@contextmanager
def store_errors(path: AnyPath) -> Iterator[None]:
    """Turn the errors of a store's client into StoreError; each client has its own."""
    try:
        yield
    except (FileExistsError, FileNotFoundError, DedupError):
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        raise StoreError(None, words_of(error), str(path)) from error


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
