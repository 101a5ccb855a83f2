"""What the files of a part are called where a data set is written again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = ["names_of_files"]


def names_of_files(paths: Sequence[str], *suffixes: str) -> list[str]:
    """Return the names of files without their folders; others, where two are alike.

    Parameters
    ----------
    paths : sequence of str
        Local, or URLs.
    *suffixes : str
        What a name may end in; if one does not, all are ``part-00000`` and so on, with the first.

    Examples
    --------
    >>> names_of_files(["a/x.npy", "b/y.npy"], ".npy")
    ['x.npy', 'y.npy']
    >>> names_of_files(["a/x.npy", "b/x.npy"], ".npy")
    ['part-00000.npy', 'part-00001.npy']
    """
    names = [PurePosixPath(path).name for path in paths]
    if len(set(names)) == len(names) and all(name.endswith(suffixes) for name in names):
        return names
    return [f"part-{i:05d}{suffixes[0]}" for i in range(len(names))]
