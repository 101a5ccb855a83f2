"""What a person has said of scored pictures: confirmed or rejected, read back from a CSV file."""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO

import pandas as pd

from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.objects import read_content

__all__ = ["WORDS", "read_verdicts"]

WORDS = ("confirmed", "rejected")


def read_verdicts(path: AnyPath, images: Collection[str], identity: str) -> dict[str, str]:
    """Return the verdict of each picture.

    Parameters
    ----------
    path : AnyPath
        CSV with the columns ``image`` and ``verdict``, and ``pictures`` as the page saves it.
    images : collection of str
        Pictures that were scored.
    identity : str
        Of these pictures: a file that has a column ``pictures`` has to be of them. Another picture
        may have the same name.

    Raises
    ------
    InputError
        It cannot be read, has other columns or words, names a picture that was not scored, says
        two things of one, or is of other pictures.
    """
    try:
        content = BytesIO(read_content(path))
        table = pd.read_csv(content, dtype="str", keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}).") from error
    if not {"image", "verdict"} <= set(table):
        raise InputError(
            f"{path}: expected the columns image and verdict, got {', '.join(map(str, table))}."
        )
    if "pictures" in table and (table["pictures"] != identity).any():
        raise InputError(
            f"{path}: its verdicts are of other pictures than those that are scored now. Move it "
            f"elsewhere, and decide anew."
        )
    known = set(images)
    found: dict[str, str] = {}
    for line, (image, word) in enumerate(zip(table["image"], table["verdict"], strict=True), 2):
        if word not in WORDS:
            raise InputError(
                f"{path}: line {line}: expected {' or '.join(WORDS)} as verdict, got {word!r}."
            )
        if image not in known:
            raise InputError(f"{path}: line {line}: {image} is none of the pictures scored.")
        if found.setdefault(image, word) != word:
            raise InputError(f"{path}: line {line}: {image} is both confirmed and rejected.")
    return found
