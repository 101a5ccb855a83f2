"""Local pictures of rows, found by a template over the user's columns, and made small.

``images/{key}.jpg`` is a file for each row; ``images/{shard}.tar#{key}`` a sample in a webdataset
tar: ``{shard}`` is the user's column of that name or, without one, the key less its last four
digits, as img2dataset makes keys. Values are not trusted: none leaves the template's folder.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from string import Formatter
from typing import NamedTuple

from dask_dedup.errors import DedupError, SettingsError
from dask_dedup.paths import AnyPath, as_path, is_remote
from dask_dedup.storage.objects import local_copy, read_content, size_of

__all__ = ["PictureTemplate", "Place", "find_template", "make_thumbnails", "read_tar_pictures"]

logger = logging.getLogger(__name__)

_SHARD = "shard"
_INDEX_DIGITS = 4  # of img2dataset's keys
_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_SIDE = 160
_QUALITY = 80
_MOST_BYTES, _MOST_PIXELS = 64 << 20, 64 << 20  # of a picture that is opened


class Place(NamedTuple):
    """Where a picture is: a file, or the sample of a tar."""

    path: str
    key: str | None


class PictureTemplate:
    """Says where the picture of a row is.

    Parameters
    ----------
    template : str
    folder : AnyPath
        That it is relative to.
    columns : sequence of str
        The user's.

    Raises
    ------
    SettingsError
        It is no template, or names a column that is not there.
    """

    def __init__(self, template: str, folder: AnyPath, columns: Sequence[str]) -> None:
        self.text = template
        path, self._has_key, key = template.partition("#")
        self._path, self._key = _parsed(path, template), _parsed(key, template)
        self._folder = folder
        named = {name for _, name in (*self._path, *self._key) if name is not None}
        if not named:
            raise SettingsError(
                f'images {template}: expected columns in braces, such as "images/{{key}}.jpg".'
            )
        self.by_key = _SHARD in named and _SHARD not in columns
        #: The user's columns that it needs.
        self.columns = sorted({"key" if n == _SHARD and self.by_key else n for n in named})
        for name in self.columns:
            if name not in columns:
                raise SettingsError(
                    f"images {template}: there is no column {name!r}; there are "
                    f"{', '.join(columns)}."
                )

    def place_of(self, row: Mapping[str, str | None]) -> Place | None:
        """Return where the picture of a row is; None where a value is missing or not allowed."""
        values = dict(row)
        if self.by_key:
            key = row.get("key")
            values[_SHARD] = key[:-_INDEX_DIGITS] if key else None
        try:
            path = _filled(self._path, values)
            key = _filled(self._key, values) if self._has_key else None
        except ValueError:
            return None
        if "://" in path or path.startswith("/"):
            return Place(path, key)
        return Place(str(self._folder / path), key)


def _parsed(text: str, template: str) -> list[tuple[str, str | None]]:
    try:
        found = [(before, name) for before, name, form, how in Formatter().parse(text)]
        extra = [form or how for _, name, form, how in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise SettingsError(f"images {template}: is no template ({error}).") from error
    if any(extra) or any(name == "" for _, name in found):
        raise SettingsError(f"images {template}: expected names of columns alone in braces.")
    return found


def _filled(parts: Sequence[tuple[str, str | None]], values: Mapping[str, str | None]) -> str:
    text = ""
    for before, name in parts:
        text += before
        if name is not None:
            text += _safe(values.get(name), is_first=not text)
    return text


def _safe(value: str | None, is_first: bool) -> str:
    """Return a value that stays in its folder; ValueError of another."""
    segments = (value or "").replace("\\", "/").split("/")
    if not value or ".." in segments or not value.isprintable() or "://" in value or "#" in value:
        raise ValueError(value)
    if is_first and value.startswith("/"):
        raise ValueError(value)
    return value


def find_template(dataset: str | AnyPath, columns: Sequence[str]) -> str | None:
    """Return the template of the pictures in the folder ``images`` of a data set; None: nothing.

    Tars there are taken by ``{shard}.tar#{key}``, files by ``{key}`` and the ending of one of them.
    Only a local folder is looked into.
    """
    folder = as_path(dataset)
    if is_remote(folder) or "key" not in columns:
        return None
    try:
        entries = (folder / "images").iterdir()
        some = [path.name for path, _ in zip(entries, range(100), strict=False)]
    except OSError:
        return None
    endings = {name.rpartition(".")[2].lower(): name.rpartition(".")[2] for name in some}
    if "tar" in endings:
        return "images/{shard}.tar#{key}"
    return next((f"images/{{key}}.{endings[one]}" for one in _ENDINGS if one in endings), None)


def make_thumbnails(places: Sequence[tuple[int, Place]]) -> dict[int, bytes]:
    """Return small pictures of some rows, as WebP of at most 160 x 160: by the row's id.

    One that is not there, or cannot be read, is left out; a line of the log counts them.
    """
    found: dict[int, bytes] = {}
    tars: dict[str, dict[str, list[int]]] = {}
    for row_id, place in places:
        if place.key is not None:
            tars.setdefault(place.path, {}).setdefault(place.key, []).append(row_id)
        else:
            content = _read_file(place.path)
            if content is not None and (small := _shrink(content)) is not None:
                found[row_id] = small
    for path, wanted in tars.items():
        for key, content in read_tar_pictures(path, wanted):
            small = _shrink(content)
            if small is not None:
                found |= dict.fromkeys(wanted[key], small)
    if len(found) < len(places):
        missing = len(places) - len(found)
        logger.info("pictures: %d of %d are not there or cannot be read", missing, len(places))
    return found


def _read_file(path: str) -> bytes | None:
    try:
        return read_content(as_path(path)) if size_of(path) <= _MOST_BYTES else None
    except (OSError, DedupError):
        return None


def read_tar_pictures(
    path: str, wanted: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the first picture of each wanted sample of a tar: its key and the file's content.

    A tar that cannot be read ends there, with a line of the log.
    """
    seen = set()
    try:
        with tarfile.open(local_copy(path), "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                key, _, ending = member.name.rpartition("/")[2].partition(".")
                if key not in wanted or ending.lower() not in _ENDINGS or not member.isfile():
                    continue
                if member.size > _MOST_BYTES or key in seen:
                    continue
                file = tar.extractfile(member)
                if file is not None:
                    seen.add(key)
                    yield key, file.read()
                if len(seen) == len(wanted):
                    break
    except (tarfile.TarError, OSError, EOFError, DedupError) as error:
        logger.info("%s: cannot be read as a tar (%s)", path, error)


def _shrink(content: bytes) -> bytes | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # a JPEG is decoded at a fraction
            small = ImageOps.exif_transpose(image)
            small = small.convert("RGBA")
            small.thumbnail((_SIDE, _SIDE))
            ground = Image.new("RGB", small.size, "white")
            ground.paste(small, mask=small.getchannel("A"))
            out = BytesIO()
            ground.save(out, "WEBP", quality=_QUALITY, method=4)
            return out.getvalue()
    except Exception as error:  # decoders of hostile files raise anything
        logger.debug("a picture cannot be read (%s)", error)
        return None
