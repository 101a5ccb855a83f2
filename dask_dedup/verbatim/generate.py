"""Generate pictures from the captions of candidates, after ranking them cheaply.

The ranking costs one denoising step a picture (white box), or one-step pictures of several seeds
(black box); whole pictures are made of the best prompts alone. Every picture is a file of its own,
written aside and renamed: what is there is not made again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from dask.delayed import delayed
from PIL import Image

from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.runtime.executor import (
    Execute,
    NoProgress,
    OnWorker,
    Progress,
    compute_tasks,
    ignore_result,
)
from dask_dedup.storage.claim import Claim, remove_names
from dask_dedup.storage.files import (
    digest_of,
    read_frame,
    read_json,
    write_aside,
    write_frame,
    write_json,
)
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import remove_tree
from dask_dedup.storage.stage import Stage
from dask_dedup.verbatim.model import Model, model_files
from dask_dedup.verbatim.prompts import picture_name, read_candidates, read_prompts

__all__ = [
    "PICTURES_FOLDER",
    "RANKS",
    "STATE",
    "GenerateSettings",
    "generate",
    "generate_batch",
    "rank_batch",
    "try_model",
]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

#: How prompts may be ranked: by which column of ``ranks.parquet``.
RANKS = {"change": "change", "text-norm": "text_norm", "edges": "edges"}
STATE, _RANKS = "generated.json", "ranks.parquet"
PICTURES_FOLDER, _STAGES = "pictures", "stages"
_RANK_SEEDS = 4


@dataclass(frozen=True)
class GenerateSettings:
    """What is generated.

    Attributes
    ----------
    model : Model
    seeds : int
        Pictures of each prompt: of the seeds 0 and up.
    prompts : int
        Captions of each candidate, at most.
    rank : str or None
        ``change``, ``text-norm`` (white box) or ``edges`` (black box); None: no ranking.
    best : int or None
        Prompts that pictures are made of, the highest ranks first; None: all.
    batch : int
        Pictures made at a time by a worker.
    """

    model: Model
    seeds: int = 4
    prompts: int = 1
    rank: str | None = None
    best: int | None = None
    batch: int = 4


def generate(
    dest: str | AnyPath,
    settings: GenerateSettings,
    *,
    overwrite: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Generate pictures from the captions of the candidates in ``dest``; computes.

    Parameters
    ----------
    dest : path or URL
        Of `find_candidates`; gets a folder ``generated``.
    settings : GenerateSettings
    overwrite : bool
        Begin anew, whatever another model or other settings left in ``generated``; it goes once
        this model has made a picture.
    execute, progress
        See `dask_dedup.runtime.executor`. Each worker loads the model once. With workers of one's
        own that are to have a GPU each: ``use_client(client, resources=GPU)``.

    Returns
    -------
    dict
        The content of ``dest/generated/generated.json``: ``pictures`` made, ``resumed``, those that
        were there, ``prompts``, ``unranked``: prompts whose rank the model does not show.

    Raises
    ------
    OutputError
        There are no candidates, or ``generated`` is of another model, other settings, or of a
        folder whose files were others.
    SettingsError, InputError
        Of the model.

    Notes
    -----
    More seeds, prompts or a larger ``best`` add to what is there. ``generated/ranks.parquet`` has
    ``candidate``, ``prompt``, ``caption``, ``change``, ``text_norm`` and ``edges`` (null where not
    measured). A worker holds the model and a batch.
    """
    dest, progress = as_path(absolute_name(dest)), progress or NoProgress()
    _check(settings)
    found = read_candidates(dest)
    folder = dest / "generated"
    # What a picture depends on, beside its prompt and seed.
    own = {
        "candidates": found.identity,
        "model": asdict(settings.model),
        "files": model_files(settings.model.name),
    }
    prompts = read_prompts(found, settings.prompts)

    with Claim(folder, lambda: _refuse_others(folder, own, overwrite)) as claim:
        if overwrite and PICTURES_FOLDER in (names_in(folder) or ()):
            # What is there has taken long: it goes once the model is known to make others.
            trial = delayed(OnWorker(__name__, "try_model"))(settings.model, prompts["caption"][0])
            execute([trial], ignore_result)
        if overwrite:
            remove_names(folder, (PICTURES_FOLDER, _STAGES, _RANKS, STATE))
        state = {"tool": "dask_dedup", "finished": False, "digest": digest_of(own), **own}
        write_json(folder / STATE, state)
        try:
            unranked = 0
            if settings.rank is not None:
                ranks = _rank(folder, prompts, settings, execute, progress)
                values = ranks[RANKS[settings.rank]]
                unranked = int(values.isna().sum())
                order = values.sort_values(ascending=False, kind="stable", na_position="last").index
                prompts = prompts.loc[order]
            prompts = prompts.head(settings.best or len(prompts))
            made, resumed = _draw(folder, prompts, settings, execute, progress)
        finally:
            progress.close()
        claim.check_own()
        summary = {
            "pictures": made + resumed,
            "resumed": resumed,
            "prompts": len(prompts),
            "unranked": unranked,
            "rank": settings.rank,
            "seeds": settings.seeds,
        }
        write_json(folder / STATE, {**state, "finished": True, **summary})
        return summary


def try_model(model: Model, caption: str) -> None:
    """Make a picture of few steps, and forget it; InputError of a model that does not."""
    from dask_dedup.verbatim.model import draw
    from dask_dedup.verbatim.model_device import on_own_gpu

    draw(on_own_gpu(model), [caption], [0], min(model.steps, 2))


def rank_batch(model: Model, captions: Sequence[str], is_black_box: bool) -> dict[str, Any]:
    """Return ``edges``, or ``change`` and ``text_norm``, of some prompts, each of several seeds.

    A value that the model does not show is null: JSON has no NaN.
    """
    from dask_dedup.verbatim.edges import common_edges
    from dask_dedup.verbatim.model import draw, first_step
    from dask_dedup.verbatim.model_device import on_own_gpu

    model = on_own_gpu(model)
    given = [([caption] * _RANK_SEEDS, [*range(_RANK_SEEDS)]) for caption in captions]
    if is_black_box:
        edges = [common_edges(draw(model, *one, 1)) for one in given]
        return {"rows": len(captions), "edges": edges}
    means = np.array([np.mean(first_step(model, *one), axis=0) for one in given])
    change, text_norm = ([None if v != v else v for v in values] for values in means.T.tolist())
    return {"rows": len(captions), "change": change, "text_norm": text_norm}


def generate_batch(
    model: Model, pictures: Sequence[tuple[str, int, str]], folder: AnyPath
) -> dict[str, int]:
    """Make some pictures: of each a prompt, a seed, and the name of its file."""
    from dask_dedup.verbatim.model import draw
    from dask_dedup.verbatim.model_device import on_own_gpu

    model = on_own_gpu(model)
    captions, seeds, names = zip(*pictures, strict=True)
    for picture, name in zip(draw(model, captions, seeds, model.steps), names, strict=True):
        with write_aside(folder / name) as temporary:
            Image.fromarray((picture * 255).round().astype(np.uint8)).save(temporary, "PNG")
    return {"rows": len(pictures)}


def _rank(
    folder: AnyPath,
    prompts: pd.DataFrame,
    settings: GenerateSettings,
    execute: Execute,
    progress: Progress,
) -> pd.DataFrame:
    """Return the ranks of all prompts, in their order; those of an earlier call are used."""
    assert settings.rank is not None
    key = ["candidate", "prompt"]
    names = [*RANKS.values()]
    path = folder / _RANKS
    known = prompts.iloc[:0].assign(**dict.fromkeys(names, np.nan))
    if path in [folder / name for name in names_in(folder) or ()]:
        known = read_frame(path)
    ranks = prompts.merge(known[[*key, *names]], on=key, how="left")
    ranks.index = prompts.index
    is_black_box = settings.rank == "edges"
    column = "edges" if is_black_box else "change"
    waiting = prompts[ranks[column].isna()]
    progress.start("rank", len(waiting))
    batches = _batched(list(waiting.itertuples()), settings.batch)
    stage = Stage(folder / _STAGES, {"model": asdict(settings.model), "column": column})
    tasks = {}
    for batch in batches:
        captions = [row.caption for row in batch]
        # A record is used again of the same prompts alone: with --prompts 2 batches are others.
        name = f"{batch[0].candidate:06d}-{batch[0].prompt:02d}-{digest_of({'of': captions})}"
        tasks[name] = (settings.model, captions, is_black_box)
    on_worker = OnWorker(__name__, "rank_batch")
    records = stage.run(on_worker, tasks, execute, lambda record: progress.advance(record["rows"]))
    for batch, record in zip(batches, records, strict=True):
        for name in names:
            values = record.get(name)
            if values is not None:
                ranks.loc[[row.Index for row in batch], name] = np.array(values, np.float64)
    progress.finish()
    write_frame(path, ranks.astype(dict.fromkeys(names, np.float64)))
    remove_tree(folder / _STAGES)
    return ranks


def _draw(
    folder: AnyPath,
    prompts: pd.DataFrame,
    settings: GenerateSettings,
    execute: Execute,
    progress: Progress,
) -> tuple[int, int]:
    """Make the pictures that are not there; return how many, and how many were there."""
    target = folder / PICTURES_FOLDER
    there = set(names_in(target) or ())
    wanted = [
        (row.caption, seed, picture_name(row.candidate, row.prompt, seed))
        for row in prompts.itertuples()
        for seed in range(settings.seeds)
    ]
    missing = [one for one in wanted if one[2] not in there]
    progress.start("generate", len(missing))
    tasks = [
        delayed(OnWorker(__name__, "generate_batch"))(settings.model, batch, target)
        for batch in _batched(missing, settings.batch)
    ]
    execute(tasks, lambda record: progress.advance(record["rows"]))
    progress.finish()
    return len(missing), len(wanted) - len(missing)


def _batched(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _refuse_others(folder: AnyPath, own: dict[str, Any], overwrite: bool) -> None:
    names = set(names_in(folder) or ())
    foreign = (
        names - {STATE, _RANKS, PICTURES_FOLDER, _STAGES} - {n for n in names if n.startswith(".")}
    )
    if foreign:
        raise OutputError(
            f"{folder}: holds {sorted(foreign)[0]}, which is not of this tool. Choose another "
            f"folder."
        )
    state = read_json(folder / STATE, sealed=True)
    if names and not isinstance(state, dict):
        raise OutputError(f"{folder}: holds pictures of unknown origin. Choose another folder.")
    if isinstance(state, dict) and state.get("digest") != digest_of(own) and not overwrite:
        raise OutputError(
            f"{folder}: holds pictures of another model, other files or settings of it, or other "
            f"candidates. Choose another folder, or begin anew with --overwrite."
        )


def _check(settings: GenerateSettings) -> None:
    model = settings.model
    values = {
        "seeds": settings.seeds,
        "prompts": settings.prompts,
        "batch": settings.batch,
        "steps": model.steps,
        "best": 1 if settings.best is None else settings.best,
        "size": 1 if model.size is None else model.size,
    }
    for name, value in values.items():
        if value < 1:
            raise SettingsError(f"{name}: expected at least 1, got {value}.")
    if model.guidance is not None and not np.isfinite(model.guidance):
        raise SettingsError(f"guidance: expected a number, got {model.guidance}.")
    if settings.rank is not None and settings.rank not in RANKS:
        raise SettingsError(f"rank: expected {', '.join(RANKS)}, got {settings.rank!r}.")
    if settings.rank in ("change", "text-norm") and model.steps < 2:
        raise SettingsError("steps: expected at least 2, of which the first is looked at, got 1.")
