"""Generated pictures that lie somewhere: which candidate each belongs to.

In a folder by their names: the digits at the beginning of a file's name, or of the name of the
subfolder that it lies in, are the candidate (``000012-00-0003.png``, ``12_a.jpg``, ``12/a.jpg``).
Or by a CSV file with the column ``image`` (a path, relative to the file) and one of ``candidate``,
``row_id`` and ``caption``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple

import pandas as pd

from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.listing import glob_files
from dask_dedup.storage.objects import is_file, read_content

__all__ = ["ENDINGS", "GivenImages", "find_images"]

#: Of files that are taken for pictures.
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".jp2", ".ppm", ".tga"),
)
_DIGITS = re.compile(r"0*(\d{1,9})(?!\d)")
_WHOLE = re.compile(r"(\d{1,18})(\.0*)?")  # a column with gaps is written as 12.0
_KEYS = ("candidate", "row_id", "caption")


class GivenImages(NamedTuple):
    """``by_candidate``: files of each, sorted; ``unknown``: how many belong to none."""

    by_candidate: Mapping[int, tuple[str, ...]]
    unknown: int


def find_images(
    place: str | AnyPath, candidates: pd.DataFrame, captions: pd.DataFrame
) -> GivenImages:
    """Find the generated pictures of candidates.

    Parameters
    ----------
    place : path or URL
        A folder or a CSV file.
    candidates : DataFrame
        ``candidate``, ``row_id``.
    captions : DataFrame
        ``candidate``, ``caption``.

    Raises
    ------
    InputError
        There is no such place, no picture in it belongs to a candidate, or the file has other
        columns, no number or name where one is expected, or an image twice.
    """
    path = as_path(place)
    pairs = _of_table(path, candidates, captions) if is_file(path) else _of_folder(path)
    known = set(candidates["candidate"].tolist())
    found: dict[int, list[str]] = {}
    for candidate, name in pairs:
        if candidate in known:
            found.setdefault(candidate, []).append(name)
    count = sum(map(len, found.values()))
    if not count:
        raise InputError(
            f"{place}: none of {len(pairs):,} pictures belongs to a candidate. Expected files "
            f"whose names begin with a candidate's number, such as 000012-0.png, or a CSV file "
            f"with the columns image and {', '.join(_KEYS)} (one of them)."
        )
    sorted_files = {candidate: tuple(sorted(found[candidate])) for candidate in sorted(found)}
    return GivenImages(sorted_files, len(pairs) - count)


def _of_folder(folder: AnyPath) -> list[tuple[int, str]]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder or file.")
    pairs = []
    for name in glob_files(folder, "**/*"):
        if not name.lower().endswith(ENDINGS):
            continue
        below = str(name).removeprefix(str(folder)).lstrip("/").split("/")
        digits = _DIGITS.match(below[-1]) or (_DIGITS.match(below[-2]) if len(below) > 1 else None)
        if len(below) > 1 and (above := _DIGITS.fullmatch(below[-2])):
            digits = above
        pairs.append((int(digits[1]) if digits else -1, str(name)))
    return pairs


def _of_table(
    path: AnyPath, candidates: pd.DataFrame, captions: pd.DataFrame
) -> list[tuple[int, str]]:
    try:
        table = pd.read_csv(BytesIO(read_content(path)), dtype="str", keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}).") from error
    keys = [name for name in _KEYS if name in table]
    if len(keys) != 1 or "image" not in table:
        raise InputError(
            f"{path}: expected the columns image and one of {', '.join(_KEYS)}, got "
            f"{', '.join(map(str, table.columns))}."
        )
    (key,) = keys
    known: Mapping[str | int, int]
    if key == "caption":
        # A caption of several candidates is that of the one with most copies, the first.
        first = captions.drop_duplicates("caption")
        known = dict(zip(first["caption"], first["candidate"].tolist(), strict=True))
    else:
        numbers = candidates[key].tolist()
        known = dict(zip(numbers, candidates["candidate"].tolist(), strict=True))
    pairs: dict[str, int] = {}
    rows = zip(table["image"].fillna(""), table[key].fillna(""), strict=True)
    for row, (name, value) in enumerate(rows, 1):  # its number: a caption may have several lines
        if not name:
            raise InputError(f"{path}: row {row}: expected the path of an image, got none.")
        image = _absolute(path, name)
        if image in pairs:
            raise InputError(f"{path}: row {row}: {name} is there twice.")
        if key == "caption":
            pairs[image] = known.get(value, -1)
        elif whole := _WHOLE.fullmatch(value.strip()):
            pairs[image] = known.get(int(whole[1]), -1)
        else:
            raise InputError(f"{path}: row {row}: expected a whole number as {key}, got {value!r}.")
    return [(candidate, image) for image, candidate in pairs.items()]


def _absolute(table: AnyPath, name: str) -> str:
    return name if "://" in name or name.startswith("/") else str(table.parent / name)
