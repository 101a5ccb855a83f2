"""What the workers do to score generated pictures: candidate by candidate.

Presets, each with its own definition of a copy:

- ``webster``: template, matching or retrieved verbatim, see `squared_errors`.
- ``carlini``: extracted, where a training picture is near enough; beside it, how many generations
  of the candidate form the clique that the picture is in, see `tiles`.
- ``sscd``: copy, by the cosine of an encoder's descriptors, see `encoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.files import write_frame
from dask_dedup.storage.objects import read_content, size_of
from dask_dedup.verbatim.encoder import COPY_COSINE, ENCODER_SIDE, encode_pictures, load_encoder
from dask_dedup.verbatim.pictures import MAX_BYTES, PictureError, read_picture
from dask_dedup.verbatim.squared_errors import Thresholds, judge_copy, template_masks
from dask_dedup.verbatim.tiles import (
    EideticThresholds,
    find_clique,
    normalised_distance,
    tiled_distances,
)

__all__ = ["PRESETS", "UNREAD", "Rules", "Scored", "Work", "score_and_write", "score_candidate"]

PRESETS = ("webster", "carlini", "sscd")
#: Counts of candidates of which there was no generated picture that could be read, no training
#: picture, or copies alone.
UNREAD = ("without_images", "without_training", "own_picture_missing")
_COLUMNS = {
    "candidate": "int64",
    "image": "str",
    "preset": "str",
    "kind": "str",
    "score": "float64",
    "threshold": "float64",
    "other_row_id": "Int64",
    "clique": "Int64",
    "within": "Int64",
}


@dataclass(frozen=True)
class Rules:
    """Which presets decide, and their thresholds.

    Attributes
    ----------
    presets : tuple of str
        Of `PRESETS`.
    webster : Thresholds
    carlini : EideticThresholds
    copy_cosine : float
        At least: 0.75 is published for SSCD's ``disc_mixup``.
    encoder : str
        File of the encoder; for the preset ``sscd``.
    """

    presets: tuple[str, ...] = ("webster",)
    webster: Thresholds = field(default_factory=Thresholds)
    carlini: EideticThresholds = field(default_factory=EideticThresholds)
    copy_cosine: float = COPY_COSINE
    encoder: str = ""


@dataclass(frozen=True)
class Work:
    """One candidate.

    Attributes
    ----------
    candidate, row_id : int
    images : tuple of str
        Files of its generated pictures.
    training : mapping of int to str
        By ``row_id``: the files of its own picture and of its members, as far as they were found;
        the members by falling similarity.
    """

    candidate: int
    row_id: int
    images: tuple[str, ...]
    training: Mapping[int, str]


class Scored(NamedTuple):
    """A candidate's ``scores``, ``problems``, and which of `UNREAD` it is; empty: none."""

    scores: pd.DataFrame
    problems: list[tuple[str, str]]
    unread: str


def score_candidate(work: Work, rules: Rules) -> Scored:
    """Score the generated pictures of a candidate.

    Returns
    -------
    scores : DataFrame
        A row for each picture and preset: ``kind``, ``score``, the ``threshold`` that it was
        compared with, ``other_row_id`` of the training picture that gave it. Of carlini, the size
        of the ``clique`` that the picture is in (0: none), and how many of the training pictures
        that were looked at lie ``within`` the threshold. Empty where the candidate has no usable
        training picture.
    problems : list of (str, str)
        What could not be read (a file, or ``row N``), and a word for why.
    unread : str
    """
    problems: list[tuple[str, str]] = []
    files = {name: _read(name, problems) for name in work.images}
    generated = {
        name: picture
        for name, content in files.items()
        if content is not None and (picture := _decode(name, content, problems)) is not None
    }
    contents = {row_id: _read(path, problems) for row_id, path in work.training.items()}
    training = {
        row_id: picture
        for row_id, content in contents.items()
        if content is not None
        and (picture := _decode(f"row {row_id}", content, problems)) is not None
    }
    unread = ""
    if not generated:
        unread = "without_images"
    elif not training:
        unread = "without_training"
    elif work.row_id not in training:
        unread = "own_picture_missing"
    rows: list[dict[str, Any]] = []
    if training and generated:
        # First the prompt's own picture; where it is not to be had, its most similar copy.
        ids = sorted(training, key=lambda row_id: row_id != work.row_id)
        if "webster" in rules.presets:
            rows += _webster(generated, training, ids, rules.webster)
        if "carlini" in rules.presets:
            rows += _carlini(generated, training, ids, rules.carlini)
        if "sscd" in rules.presets:
            made = {name: files[name] or b"" for name in generated}
            rows += _sscd(made, [contents[row_id] or b"" for row_id in ids], ids, rules)
    table = pd.DataFrame(rows, columns=[name for name in _COLUMNS if name != "candidate"])
    table.insert(0, "candidate", work.candidate)
    return Scored(table.astype(_COLUMNS), problems, unread)


def score_and_write(
    works: Sequence[Work], rules: Rules, scores_path: AnyPath, problems_path: AnyPath
) -> dict[str, int]:
    """Score the generated pictures of some candidates, and write what came of them."""
    scores, problems, unread = [], [], dict.fromkeys(UNREAD, 0)
    for work in works:
        found = score_candidate(work, rules)
        scores.append(found.scores)
        problems += [(work.candidate, *problem) for problem in found.problems]
        if found.unread:
            unread[found.unread] += 1
    write_frame(scores_path, pd.concat(scores, ignore_index=True))
    names = {"candidate": "int64", "what": "str", "problem": "str"}
    write_frame(problems_path, pd.DataFrame(problems, columns=[*names]).astype(names))
    return {"rows": sum(len(work.images) for work in works), **unread}


def _webster(
    generated: Mapping[str, np.ndarray],
    training: Mapping[int, np.ndarray],
    ids: Sequence[int],
    thresholds: Thresholds,
) -> list[dict[str, Any]]:
    own, others = training[ids[0]], [training[row_id] for row_id in ids[1:]]
    masks = template_masks(own, others, thresholds)
    rows = []
    for name, picture in generated.items():
        verdict = judge_copy(picture, own, others, masks, thresholds)
        rows.append(
            {
                "image": name,
                "preset": "webster",
                "kind": verdict.kind,
                "score": verdict.score,
                "threshold": verdict.threshold,
                "other_row_id": ids[verdict.other + 1],
            }
        )
    return rows


def _carlini(
    generated: Mapping[str, np.ndarray],
    training: Mapping[int, np.ndarray],
    ids: Sequence[int],
    thresholds: EideticThresholds,
) -> list[dict[str, Any]]:
    apart = tiled_distances(np.stack([*generated.values()]), thresholds.tiles)
    clique = find_clique(apart, thresholds.joined, thresholds.clique)
    rows = []
    for place, (name, picture) in enumerate(generated.items()):
        distances = np.array([normalised_distance(picture, training[row_id]) for row_id in ids])
        nearest = int(distances.argmin())
        is_near = bool(distances[nearest] <= thresholds.extracted)
        rows.append(
            {
                "image": name,
                "preset": "carlini",
                "kind": "extracted" if is_near else "none",
                "score": distances[nearest],
                "threshold": thresholds.extracted,
                "other_row_id": ids[nearest],
                "clique": len(clique) if place in clique else 0,
                "within": int((distances <= thresholds.extracted).sum()),
            }
        )
    return rows


def _sscd(
    generated: Mapping[str, bytes], training: Sequence[bytes], ids: Sequence[int], rules: Rules
) -> list[dict[str, Any]]:
    encode = load_encoder(rules.encoder)
    made, real = (
        encode_pictures(np.stack([read_picture(one, ENCODER_SIDE) for one in contents]), encode)
        for contents in (generated.values(), training)
    )
    cosines = made.astype(np.float64) @ real.T
    rows = []
    for name, own in zip(generated, cosines, strict=True):
        nearest = int(own.argmax())
        rows.append(
            {
                "image": name,
                "preset": "sscd",
                "kind": "copy" if own[nearest] >= rules.copy_cosine else "none",
                "score": own[nearest],
                "threshold": rules.copy_cosine,
                "other_row_id": ids[nearest],
            }
        )
    return rows


def _read(path: str, problems: list[tuple[str, str]]) -> bytes | None:
    try:
        if size_of(path) > MAX_BYTES:
            problems.append((path, "too large"))
            return None
        return read_content(as_path(path))
    except OSError:
        problems.append((path, "missing"))
        return None


def _decode(name: str, content: bytes, problems: list[tuple[str, str]]) -> np.ndarray | None:
    try:
        return read_picture(content)
    except PictureError as error:
        problems.append((name, error.reason))
        return None
