"""What must not be in an output folder: refused before the work, so that nothing of it is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from dask_dedup.errors import InputError, OutputError
from dask_dedup.paths import AnyPath, absolute_name, is_remote
from dask_dedup.storage.folder_lock import LOCK
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import exists

__all__ = [
    "changed_keys",
    "refuse_foreign_results",
    "refuse_foreign_stages",
    "refuse_inputs_inside",
    "refuse_other_content",
    "refuse_other_data",
]

_ASIDE = r"\.unfinished-[0-9a-f]{12}-.*"  # see `dask_dedup.storage.files.write_aside`


def refuse_other_content(
    path: AnyPath, own_names: Collection[str] = (), *, state_name: str | None = None
) -> None:
    """Raise OutputError where a folder is not empty, and is not ours as far as we know.

    Parameters
    ----------
    path : AnyPath
    own_names : collection of str
        What may be there all the same.
    state_name : str, optional
        The file that would say whose the folder is, and does not.
    """
    names = names_in(path) or ()
    foreign = [name for name in names if name not in own_names and not name.startswith(LOCK)]
    if not foreign:
        return
    if state_name in foreign:
        raise OutputError(
            f"{path / state_name}: is damaged, or not of dask_dedup, so what is in this folder may "
            f"be the user's. Repair it, or choose another folder."
        )
    raise OutputError(
        f"{path}: holds files of something else ({_some(foreign)}). Choose an empty folder or a "
        f"new one."
    )


def refuse_foreign_results(
    path: AnyPath, folders: Iterable[str], files: Iterable[str], own_names: str
) -> None:
    """Raise OutputError where results are links, or hold what no run has written.

    They will be replaced, and nothing of the user's may go with them. ``own_names`` is a regular
    expression of the names that a run gives to files in its ``folders``.
    """
    files = [*files]
    above = {name.rpartition("/")[0] for name in files if "/" in name}
    for target in (path / name for name in (*folders, *files, *above)):
        if not is_remote(target) and target.is_symlink():
            raise OutputError(
                f"{target}: is a link, and results get their names by renaming. Remove the "
                f"link, or choose another folder."
            )
    for target in (path / name for name in files):
        if not is_remote(target) and target.is_dir():
            raise OutputError(f"{target}: is a folder; a result file would be written there.")
    for folder in (path / name for name in folders if exists(path / name)):
        foreign = sorted(
            entry.name
            for entry in folder.iterdir()
            if not re.fullmatch(rf"{own_names}|{_ASIDE}", entry.name)
            or (not is_remote(entry) and (entry.is_symlink() or not entry.is_file()))
        )
        if foreign:
            raise OutputError(
                f"{folder}: holds {_some(foreign)}, which no run has written, and which would be "
                f"lost. Move it elsewhere."
            )


def refuse_foreign_stages(
    stages: AnyPath, out: AnyPath, folders: Iterable[str], working: Container[str]
) -> None:
    """Raise OutputError where the working files are a link, or others are among them.

    ``working``: the names of ours. Nor may they lie in the result ``folders`` of ``out``, which are
    replaced.
    """
    if is_remote(stages):
        return
    real = f"{os.path.realpath(stages)}/"
    own = {} if is_remote(out) else {name: os.path.realpath(out / name) for name in folders}
    inside = [name for name, folder in own.items() if real.startswith(f"{folder}/")]
    if inside:
        raise OutputError(
            f"{stages}: lies in {out / inside[0]}, which the results replace. Choose another "
            f"folder for the working files with --work."
        )
    if stages.is_symlink():
        raise OutputError(
            f"{stages}: is a link; the working files in it are removed in the end. Remove the "
            f"link, and choose another folder for them with --work."
        )
    if not stages.is_dir():
        return
    foreign = sorted(
        entry.name
        for entry in stages.iterdir()
        if entry.is_symlink()
        or not (entry.name in working or re.fullmatch(_ASIDE, entry.name))
        or entry.is_dir() != (not entry.suffix)
    )
    if foreign:
        raise OutputError(
            f"{stages}: holds {_some(foreign)}, which no run has written, and which would be "
            f"removed in the end. Move it elsewhere."
        )


def refuse_other_data(
    path: AnyPath, origin: Mapping[str, Any] | None, source: str, sketch: Sequence[str]
) -> None:
    """Raise OutputError where the results are of a data set that shares nothing with another.

    Parameters
    ----------
    path : AnyPath
        OUT.
    origin : mapping or None
        ``path`` and ``sketch`` of the data set that the results are of.
    source, sketch
        The same of the other one; see `dask_dedup.data.sketch`.
    """
    if not isinstance(origin, Mapping) or not sketch:
        return
    if absolute_name(str(origin.get("path"))) == source:  # earlier ones are as given
        return
    if not set(origin.get("sketch", ())) & set(sketch):
        raise OutputError(
            f"{path}: holds the results of another data set, {origin.get('path')}, with which "
            f"{source} has no file in common. Choose another folder, or replace them with "
            f"--overwrite."
        )


def refuse_inputs_inside(out: AnyPath, names: Iterable[str], paths: Iterable[str]) -> None:
    """Raise InputError where files of the input lie among the results, which are replaced.

    Parameters
    ----------
    out : AnyPath
    names : iterable of str
        What a run writes into ``out``, or removes there.
    paths : iterable of str
        Files of the input.
    """
    if is_remote(out):
        own = [f"{str(out / name).rstrip('/')}/" for name in names]
        folders = {path: path for path in paths}
    else:
        own = [f"{os.path.realpath(out / name)}/" for name in names]
        parents = {os.path.dirname(path) for path in paths if not is_remote(path)}
        folders = {parent: f"{os.path.realpath(parent)}/" for parent in parents}
    for folder, real in folders.items():
        if any(real.startswith(one) for one in own):
            raise InputError(
                f"{folder}: holds files of the input, and {out} would replace them with its "
                f"results. Choose another output folder."
            )


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the settings that differ between two runs, as text: key (before → after)."""
    changed = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key} ({before} → {after})")
    return changed


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
