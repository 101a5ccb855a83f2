"""The training pictures of candidates: where each is, copied or fetched where it must be.

Files of a template are left where they are. Samples of webdataset tars, and pictures from the web,
are put into ``training/``, each under a name that is made of its URL, or of its tar and key: of
another data set the same row has another picture. Every tar is read once, and what is there is not
fetched again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from dask.delayed import delayed

from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.pictures import PictureTemplate, Place, read_tar_pictures
from dask_dedup.runtime.executor import Execute, Progress
from dask_dedup.storage.files import digest_of, write_aside
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import is_file, version_of
from dask_dedup.verbatim.fetch import Fetcher, proxies_of_environment

__all__ = ["Training", "copy_from_tar", "fetch_rows", "gather_pictures"]

logger = logging.getLogger(__name__)

FOLDER = "training"
_ENDING = ".image"
_ROWS_PER_TASK = 32


class Training(NamedTuple):
    """``paths`` of the pictures, by ``row_id``; ``problems`` of the others, a word for each row."""

    paths: dict[int, str]
    problems: dict[int, str]


@dataclass(frozen=True)
class _Row:
    row_id: int
    url: str | None
    place: Place | None
    version: tuple[int, str] | None = None  # of its tar: one that was written anew is read anew

    @property
    def name(self) -> str:
        """The name of its copy in ``training``."""
        place = self.place
        source = [self.url] if place is None else [place.path, place.key, self.version]
        return f"{digest_of({'source': source})}{_ENDING}"


def gather_pictures(
    dest: AnyPath,
    tables: Iterable[pa.Table],
    template: PictureTemplate | None,
    execute: Execute,
    progress: Progress,
    *,
    allow_private: bool = False,
) -> Training:
    """Find the pictures of some rows; computes.

    Parameters
    ----------
    dest : AnyPath
        Gets a folder ``training``.
    tables : iterable of Table
        ``row_id`` and the user's columns.
    template : PictureTemplate or None
        Where the pictures are; None: at their ``url`` in the web.
    execute, progress
    allow_private : bool
        Also fetch from addresses that are not public.
    """
    rows = _rows_of(tables, template)
    folder = dest / FOLDER
    there = set(names_in(folder) or ())
    paths = {row_id: str(folder / row.name) for row_id, row in rows.items() if row.name in there}
    missing = [row for row_id, row in rows.items() if row_id not in paths]
    problems: dict[int, str] = {}
    tasks: list[Any] = []
    if template is None:
        if missing and (proxies := proxies_of_environment()):
            logger.warning(
                "%s is set and not used: behind a proxy it cannot be seen whether an address is "
                "public",
                proxies[0],
            )
        for start in range(0, len(missing), _ROWS_PER_TASK):
            some = [
                (row.row_id, row.url, row.name) for row in missing[start : start + _ROWS_PER_TASK]
            ]
            tasks.append(delayed(fetch_rows)(some, folder, allow_private))
    else:
        tars: dict[str, dict[str, list[tuple[int, str]]]] = {}
        for row in missing:
            if row.place is None:
                problems[row.row_id] = "no value for the template"
            elif row.place.key is None:
                paths[row.row_id] = row.place.path
            else:
                tars.setdefault(row.place.path, {}).setdefault(row.place.key, []).append(
                    (row.row_id, row.name)
                )
        tasks = [delayed(copy_from_tar)(path, keys, folder) for path, keys in sorted(tars.items())]
    progress.start("pictures", len(missing) if tasks else 0)
    for found in execute(tasks, lambda found: progress.advance(len(found))):
        for row_id, problem in found.items():
            if problem:
                problems[row_id] = problem
            else:
                paths[row_id] = str(folder / rows[row_id].name)
    progress.finish()
    if not paths:
        words = ", ".join(sorted(set(problems.values()))[:3])
        raise InputError(f"{dest}: none of {len(rows):,} training pictures was found ({words}).")
    return Training(paths, problems)


def fetch_rows(
    rows: Sequence[tuple[int, str | None, str]], folder: AnyPath, allow_private: bool
) -> dict[int, str]:
    """Fetch some rows' pictures into files; return a word for each that failed, or ''.

    ``rows``: each a ``row_id``, a URL, and the name of its file.
    """
    fetcher = Fetcher(allow_private=allow_private)
    found = {}
    for row_id, url, name in rows:
        content, found[row_id] = fetcher.fetch(url)
        if not found[row_id]:
            _write(folder / name, content)
    return found


def copy_from_tar(
    path: str, keys: Mapping[str, Sequence[tuple[int, str]]], folder: AnyPath
) -> dict[int, str]:
    """Copy some samples' pictures from a tar into files; return a word for each that failed.

    ``keys``: of each sample the rows, each with the name of its file.
    """
    word = "not in its tar" if is_file(as_path(path)) else "its tar is missing"
    found = {row_id: word for rows in keys.values() for row_id, _ in rows}
    wanted = {key: [row_id for row_id, _ in rows] for key, rows in keys.items()}
    for key, content in read_tar_pictures(path, wanted):
        for row_id, name in keys[key]:
            _write(folder / name, content)
            found[row_id] = ""
    return found


def _write(path: AnyPath, content: bytes) -> None:
    with write_aside(path) as temporary:
        temporary.write_bytes(content)


def _rows_of(tables: Iterable[pa.Table], template: PictureTemplate | None) -> dict[int, _Row]:
    columns = ["url"] if template is None else template.columns
    rows: dict[int, _Row] = {}
    versions: dict[str, tuple[int, str] | None] = {}
    for table in tables:
        # A column of the user that has a name of ours stands there as source_NAME.
        own = [
            f"source_{name}" if f"source_{name}" in table.column_names else name for name in columns
        ]
        texts = table.select(own).rename_columns(columns).to_pylist()
        for row_id, values in zip(table["row_id"].to_pylist(), texts, strict=True):
            texts_only = {k: None if v is None else str(v) for k, v in values.items()}
            if template is None:
                rows[row_id] = _Row(row_id, texts_only["url"], None)
            else:
                place = template.place_of(texts_only)
                if place is not None and place.key is not None and place.path not in versions:
                    versions[place.path] = None
                    with suppress(OSError):  # it is not there
                        versions[place.path] = version_of(place.path)
                version = None if place is None else versions.get(place.path)
                rows[row_id] = _Row(row_id, None, place, version)
    return rows
