"""Score generated pictures: which of them are verbatim copies, of which training picture, and how.

A score is evidence about one model, one set of prompts and seeds, and the training pictures that
could be looked at. A copy is shown by its score; that a picture is no copy is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import InputError, OutputError, SettingsError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.results.pictures import PictureTemplate, find_template
from dask_dedup.results.result_folder import ResultFolder
from dask_dedup.runtime.executor import Execute, NoProgress, OnWorker, Progress, compute_tasks
from dask_dedup.storage.files import digest_of, read_frame, read_json, replace_tables
from dask_dedup.storage.objects import check_writable, open_parquet_source, remove_tree, version_of
from dask_dedup.storage.results_list import RESULTS
from dask_dedup.verbatim.candidates import CANDIDATES, CAPTIONS, MEMBERS
from dask_dedup.verbatim.generate import PICTURES_FOLDER, STATE
from dask_dedup.verbatim.given_images import GivenImages, find_images
from dask_dedup.verbatim.prompts import Candidates, read_candidates
from dask_dedup.verbatim.score_tasks import PRESETS, UNREAD, Rules, Work
from dask_dedup.verbatim.share_copied import share_by_copies
from dask_dedup.verbatim.training import Training, gather_pictures

__all__ = ["PROBLEMS", "SCORES", "TRAINING", "ScoreFolder", "ScoreSettings", "score"]

SCORES, PROBLEMS, TRAINING = "scores.parquet", "problems.parquet", "training.parquet"
SHARES = "shares.csv"
_TABLE = "scores.csv"
_STAGE = "score"
_IMAGES_PER_TASK = 64


class ScoreFolder(ResultFolder):
    """The folder of scores: see `ResultFolder`."""

    state_name = "scores.json"
    result_files = (SCORES, PROBLEMS, TRAINING, SHARES, _TABLE, "summary.json", RESULTS)

    def begin_unless_finished(self) -> bool:
        """Begin, go on, or return False; finished scores that are made anew stay until then."""
        if not (self.overwrite and self._read_state().get("finished")):
            return super().begin_unless_finished()
        check_writable(self.stages)
        return True

    def _remove_own(self) -> None:
        remove_tree(self.stages)


@dataclass(frozen=True)
class ScoreSettings:
    """What is scored, by which rules, against which training pictures.

    Attributes
    ----------
    rules : Rules
    images : str or None
        Generated pictures that were made elsewhere: see `given_images`. None: those of `generate`.
    training : str or None
        Template of the training pictures' files, such as ``images/{key}.jpg`` or
        ``images/{shard}.tar#{key}``, relative to the data set. None: found beside the data set.
    load_urls : bool
        Fetch training pictures from their URLs instead.
    """

    rules: Rules = field(default_factory=Rules)
    images: str | None = None
    training: str | None = None
    load_urls: bool = False


def score(
    dest: str | AnyPath,
    settings: ScoreSettings | None = None,
    *,
    overwrite: bool = False,
    allow_private: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score generated pictures of the candidates in ``dest``; computes.

    Parameters
    ----------
    dest : path or URL
        Of `find_candidates`; gets folders ``scores`` and ``training``.
    settings : ScoreSettings, optional
    overwrite : bool
        Begin anew, whatever scores an earlier call left; they stay until the new ones are made.
    allow_private : bool
        Also fetch URLs of addresses that are not public: of a server of one's own.
    execute, progress
        See `dask_dedup.runtime.executor`.

    Returns
    -------
    dict
        The content of ``dest/scores/summary.json``: ``images``, ``scored``, by preset the counts of
        each kind, and what was not looked at: candidates ``without_images`` and
        ``without_training`` pictures that could be read, ``own_picture_missing``, which were
        compared with copies alone, ``images_unknown`` of no candidate, ``unfinished``: 1 where
        `generate` was stopped, ``unranked`` prompts, candidates with ``copies_left_out``, pictures
        that are no candidates as they are ``without_caption``, ``problems`` by word.

    Raises
    ------
    OutputError
        There are no candidates, the pictures were generated of others, or ``scores`` holds
        something else.
    InputError, SettingsError

    Notes
    -----
    ``scores.parquet``: ``candidate``, ``row_id``, ``k``, ``image``, ``preset``, ``kind``,
    ``score``, ``threshold``, ``other_row_id``, ``clique``, ``within`` (see
    `score_tasks.score_candidate`).
    ``shares.csv``: of candidates by k, how many have a copy, with 95 % Wilson intervals.
    ``problems.parquet``: what could not be read; ``training.parquet``: where each training picture
    is. A task holds the pictures of some candidates, some
    1.6 MB each.
    """
    dest, progress = as_path(absolute_name(dest)), progress or NoProgress()
    chosen = settings or ScoreSettings()
    _check(chosen)
    found = read_candidates(dest)
    generated = _generated(dest, found, chosen)
    images = _find_images(dest, found, chosen)
    template = _template(found, chosen)
    versions = _versions(images)
    fingerprint = digest_of(
        {"candidates": found.identity, "images": versions, "encoder": _encoder(chosen)}
    )
    own = asdict(chosen)
    with ScoreFolder(dest / "scores", own, fingerprint, (), (_STAGE,), overwrite) as folder:
        if not folder.begin_unless_finished():
            return folder.read_summary()
        try:
            tables = [_read(found.folder / CANDIDATES), _read(found.folder / MEMBERS)]
            wanted = pa.array([*images.by_candidate], pa.int64())
            tables = [
                table.filter(pa.compute.is_in(table["candidate"], wanted)) for table in tables
            ]
            training = gather_pictures(
                dest, tables, template, execute, progress, allow_private=allow_private
            )
            works = _works(tables, images, training)
            scored = _score(folder, works, chosen.rules, execute, progress)
        finally:
            progress.close()
        summary = {
            **_publish(folder, found, images, training, works, scored),
            **generated,
            "settings": own,
            "candidates_identity": found.identity,
            "images_identity": digest_of({"images": versions}),
        }
        folder.finish(summary, keep_stages=False)
        return summary


class _Scored(NamedTuple):
    scores: pd.DataFrame
    problems: pd.DataFrame
    unread: Mapping[str, int]  # by the names of `UNREAD`


def _works(tables: list[pa.Table], images: GivenImages, training: Training) -> list[Work]:
    """Return the candidates that have pictures of both kinds; members by falling similarity."""
    candidates, members = (table.select(["candidate", "row_id"]).to_pandas() for table in tables)
    of_members = members.groupby("candidate")["row_id"].agg(list)
    works = []
    for row in candidates.itertuples():
        ids = [row.row_id, *of_members.get(row.candidate, [])]
        paths = {row_id: training.paths[row_id] for row_id in ids if row_id in training.paths}
        if paths:
            works.append(Work(row.candidate, row.row_id, images.by_candidate[row.candidate], paths))
    return works


def _score(
    folder: ScoreFolder, works: list[Work], rules: Rules, execute: Execute, progress: Progress
) -> _Scored:
    # What the pictures of tars and URLs are is part of the tasks, which are known by it.
    stage = folder.stage(_STAGE, {"rules": asdict(rules), "works": digest_of(_json(works))})
    batches: list[list[Work]] = []
    held = _IMAGES_PER_TASK
    for work in works:
        if held >= _IMAGES_PER_TASK:
            batches.append([])
            held = 0
        batches[-1].append(work)
        held += len(work.images)
    pairs = [
        (stage.folder / f"scores-{i:06d}.parquet", stage.folder / f"problems-{i:06d}.parquet")
        for i in range(len(batches))
    ]
    progress.start(_STAGE, sum(len(work.images) for work in works))
    records = stage.run(
        OnWorker("dask_dedup.verbatim.score_tasks", "score_and_write"),
        {
            f"batch-{i:06d}": (batch, rules, *pair)
            for i, (batch, pair) in enumerate(zip(batches, pairs, strict=True))
        },
        execute,
        lambda record: progress.advance(record["rows"]),
    )
    progress.finish()
    scores, problems = zip(*[[read_frame(path) for path in pair] for pair in pairs], strict=True)
    counts = {name: sum(record[name] for record in records) for name in UNREAD}
    return _Scored(
        pd.concat(scores, ignore_index=True), pd.concat(problems, ignore_index=True), counts
    )


def _publish(
    folder: ScoreFolder,
    found: Candidates,
    images: GivenImages,
    training: Training,
    works: list[Work],
    scored: _Scored,
) -> dict[str, Any]:
    """Write the tables, and return the summary."""
    scores, problems, unread = scored
    # Of webster alone they are null, and parquet's nulls come back as floats.
    scores = scores.astype(dict.fromkeys(("other_row_id", "clique", "within"), "Int64"))
    about = found.table.set_index("candidate")[["row_id", "k"]]
    scores.insert(1, "row_id", scores["candidate"].map(about["row_id"]))
    scores.insert(2, "k", scores["candidate"].map(about["k"]))
    not_found = pd.DataFrame(
        {
            "candidate": pd.array([None] * len(training.problems), "Int64"),
            "what": [f"row {row_id}" for row_id in training.problems],
            "problem": [*training.problems.values()],
        }
    )
    problems = pd.concat([problems.astype({"candidate": "Int64"}), not_found], ignore_index=True)
    paths = {"row_id": [*training.paths], "path": [*training.paths.values()]}
    tables = {
        SCORES: scores,
        PROBLEMS: problems,
        TRAINING: pd.DataFrame(paths).astype({"row_id": np.int64}),
        SHARES: share_by_copies(scores),
        _TABLE: scores,
    }
    replace_tables(folder.path, tables, folder.begin)
    members = found.summary["settings"]["members"]
    looked_at = int(scores.groupby("preset")["image"].size().max()) if len(scores) else 0
    kinds: dict[str, dict[str, int]] = {}
    for (preset, kind), count in scores.groupby(["preset", "kind"]).size().items():
        kinds.setdefault(str(preset), {})[str(kind)] = int(count)
    return {
        "candidates": len(found.table),
        "images": sum(map(len, images.by_candidate.values())),
        "images_unknown": images.unknown,
        "scored": looked_at,
        "kinds": kinds,
        "without_images": len(found.table) - len(images.by_candidate) + unread["without_images"],
        "without_training": len(images.by_candidate) - len(works) + unread["without_training"],
        "own_picture_missing": unread["own_picture_missing"],
        "copies_left_out": int((about["k"][scores["candidate"].unique()] - 1 > members).sum()),
        "without_caption": found.summary.get("without_caption", 0),
        "problems": {str(word): int(n) for word, n in problems["problem"].value_counts().items()},
    }


def _generated(dest: AnyPath, found: Candidates, settings: ScoreSettings) -> dict[str, int]:
    """Return what `generate` has not done; refuse pictures that it made of other candidates."""
    if settings.images is not None:
        return {"unfinished": 0, "unranked": 0}
    state = read_json(dest / "generated" / STATE, sealed=True)
    if not isinstance(state, dict):
        raise OutputError(
            f"{dest}: holds no generated pictures. Make some with `dask-dedup verbatim generate`, "
            f"or name those that were made elsewhere with --images."
        )
    if state.get("candidates") != found.identity:
        raise OutputError(
            f"{dest}: its pictures were generated of other candidates than those that are there "
            f"now. Make them anew with `dask-dedup verbatim generate --overwrite`."
        )
    return {"unfinished": int(not state.get("finished")), "unranked": state.get("unranked", 0)}


def _find_images(dest: AnyPath, found: Candidates, settings: ScoreSettings) -> GivenImages:
    place: str | AnyPath = settings.images or dest / "generated" / PICTURES_FOLDER
    return find_images(place, found.table, read_frame(found.folder / CAPTIONS))


def _template(found: Candidates, settings: ScoreSettings) -> PictureTemplate | None:
    if settings.load_urls:
        return None
    run = as_path(found.summary["run"])
    data = as_path((read_json(run / "summary.json") or {}).get("dataset", run))
    columns = [
        name.removeprefix("source_")
        for name in pq.ParquetFile(open_parquet_source(found.folder / MEMBERS)).schema_arrow.names
    ]
    template = settings.training or find_template(data, columns)
    if template is None:
        raise SettingsError(
            f"training: where the training pictures are is not known: there is no folder images "
            f"with pictures by key in {data}. Name it, such as --training "
            f"'images/{{key}}.jpg', or fetch them from their URLs with --load-urls."
        )
    return PictureTemplate(template, data, columns)


def _read(path: AnyPath) -> pa.Table:
    return pq.read_table(open_parquet_source(path), page_checksum_verification=True)


def _versions(images: GivenImages) -> list[list[Any]]:
    found = []
    for candidate, names in images.by_candidate.items():
        for name in names:
            version: tuple[Any, ...] = ()  # of a file that is not there: a problem of its own
            with suppress(OSError):
                version = version_of(name)
            found.append([candidate, name, *version])
    return found


def _encoder(settings: ScoreSettings) -> list[Any]:
    if "sscd" not in settings.rules.presets:
        return []
    try:
        return [*version_of(settings.rules.encoder)]
    except OSError as error:
        raise InputError(f"{settings.rules.encoder}: no such file; it is the encoder.") from error


def _json(works: list[Work]) -> Mapping[str, Any]:
    return {
        str(work.candidate): [list(work.images), {str(i): p for i, p in work.training.items()}]
        for work in works
    }


def _check(settings: ScoreSettings) -> None:
    rules = settings.rules
    unknown = [name for name in rules.presets if name not in PRESETS]
    if unknown or not rules.presets:
        raise SettingsError(
            f"preset: expected {', '.join(PRESETS)}, got {unknown[0] if unknown else 'none'}."
        )
    if "sscd" in rules.presets and not rules.encoder:
        raise SettingsError(
            "preset sscd: expected an encoder, a TorchScript or an ONNX file, got none."
        )
    if not -1 <= rules.copy_cosine <= 1:
        raise SettingsError(
            f"copy-cosine: expected a cosine from -1 to 1, got {rules.copy_cosine}."
        )
    if settings.load_urls and settings.training is not None:
        raise SettingsError("training: a template and load-urls exclude each other.")
