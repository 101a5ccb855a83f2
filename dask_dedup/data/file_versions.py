"""Which version of each of its files a data set was read from, and whether it is still that one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from dask_dedup.data.content_mark import content_mark
from dask_dedup.data.each_file import ask_each_file
from dask_dedup.data.parts import Part
from dask_dedup.data.sketch import sketch_of
from dask_dedup.errors import InputError
from dask_dedup.storage.objects import version_of

__all__ = ["FileVersions", "check_same", "paths_of", "version_or_none", "versions_of"]


class FileVersions:
    """The files of some parts, as they were when they were first asked for.

    Parameters
    ----------
    parts : sequence of Part
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of names, sizes, times (of a store: ETags), row counts and content marks."""
        marked: list = [(Path(path).name, *others) for path, *others in self._versions]
        marked += self._marks
        marked += [part.index for part in self.parts if part.embeddings.problem is not None]
        return hashlib.sha256(json.dumps(marked).encode()).hexdigest()[:16]

    @cached_property
    def sketch(self) -> list[str]:
        """Digests by which a grown or changed version is known: see `dask_dedup.data.sketch`."""
        files = zip(self._versions, self._marks, strict=True)
        return sketch_of((size, mark or version) for (_, _, size, version), mark in files)

    def check_unchanged(self, content: bool) -> None:
        """Raise InputError where a file has been written anew, or is gone, since `fingerprint`.

        With ``content`` also where size and time are the same, but not what `content_mark` reads.
        """
        before, after = self._versions, self._read_versions()
        changed = [old[0] for old, new in zip(before, after, strict=True) if old != new]
        if content and not changed:
            marks = zip(before, self._marks, self._read_marks(), strict=True)
            changed = [path for (path, *_), old, new in marks if old != new]
        if changed:
            more = (
                f" and {len(changed) - 1} more file{'s' * (len(changed) > 2)}"
                if changed[1:]
                else ""
            )
            raise InputError(
                f"{changed[0]}{more}: changed while the run was reading the data set; nothing of "
                f"it is published. The same command begins anew with the files as they are now."
            )

    @cached_property
    def _versions(self) -> list[tuple[str, int, int, str]]:
        return self._read_versions()

    def _read_versions(self) -> list[tuple[str, int, int, str]]:
        """Return path, rows of the part, size and version of each file as it is now."""
        files = [(path, part.rows) for part in self.parts for path in paths_of(part)]
        versions = ask_each_file(version_or_none, [path for path, _ in files])
        return [(*file, *version) for file, version in zip(files, versions, strict=True)]

    @cached_property
    def _marks(self) -> list[str]:
        return self._read_marks()

    def _read_marks(self) -> list[str]:
        """Return marks of the content of each file, as in `_versions`."""
        return ask_each_file(content_mark, [path for path, *_ in self._versions])


def version_or_none(path: str) -> tuple[int, str]:
    """Return a file's size and version; -1 and nothing where it is gone."""
    try:
        return version_of(path)
    except FileNotFoundError:
        return -1, ""


def versions_of(paths: Sequence[str]) -> list[list]:
    """Return path, size, version and `content_mark` of some files as they are now: JSON."""
    marks = ask_each_file(content_mark, paths)
    versions = ask_each_file(version_or_none, paths)
    return [
        [path, *version, mark] for path, version, mark in zip(paths, versions, marks, strict=True)
    ]


def check_same(before: Sequence[list]) -> None:
    """Raise InputError where `versions_of` some files says another thing than ``before``."""
    after = versions_of([path for path, *_ in before])
    changed = [old[0] for old, new in zip(before, after, strict=True) if old != new]
    if changed:
        raise InputError(
            f"{changed[0]}: changed while it was read ({len(changed):,} of {len(before):,} files); "
            f"nothing is published. Run the same command again."
        )


def paths_of(part: Part) -> list[str]:
    """Return the files of a part, each once."""
    paths = [part.embeddings.path]
    if part.metadata_path:
        paths.insert(0, part.metadata_path)
    if part.text_embeddings is not None:
        paths.append(part.text_embeddings.path)
    return list(dict.fromkeys(paths))
