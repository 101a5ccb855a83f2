"""The data set that a finished run was made from, read again."""

from __future__ import annotations

import logging
from dataclasses import replace

from dask_dedup.data.dataset import Dataset, read_dataset
from dask_dedup.errors import InputError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.finished_run import FinishedRun
from dask_dedup.storage.listing import has_files

__all__ = ["open_both_modalities", "open_run_dataset"]

logger = logging.getLogger(__name__)


def open_run_dataset(run: FinishedRun, dataset: str | AnyPath | None = None) -> Dataset:
    """Return the data set of a run, with the embeddings that it has compared.

    Files that the run went without are quarantined.

    Parameters
    ----------
    run : FinishedRun
    dataset : path or URL, optional
        Where it lies now, with the same files and times; by default where it lay.

    Raises
    ------
    InputError
        It is gone, or has changed since.
    """
    place = as_path(dataset if dataset is not None else run.summary["dataset"])
    try:
        data = _read(run, place, texts=False)
    except InputError as error:
        raise InputError(
            f"{str(error).rstrip('.')}. It is the data set of {run.path}, and is read again; if it "
            f"lies elsewhere now, name that place (--dataset)."
        ) from error
    if data.fingerprint != run.state["input"]:
        raise InputError(
            f"{place}: has changed since the run into {run.path}, whose rows are known by their "
            f"position in it. Run again, or name the place of the unchanged data set (--dataset)."
        )
    return data


def open_both_modalities(run: FinishedRun, dataset: str | AnyPath | None = None) -> Dataset:
    """Return the data set of a run with images as embeddings, and texts beside them.

    As far as it has them, and whichever the run has compared: what is missing or does not fit is
    left out with a warning. Parameters and errors are those of `open_run_dataset`.
    """
    data = open_run_dataset(run, dataset)
    if run.read.embedding_column is not None:
        return data
    return _with_texts(run, data) if run.read.modality == "image" else _with_images(run, data)


def _read(run: FinishedRun, place: AnyPath, texts: bool, modality: str | None = None) -> Dataset:
    options = run.read.model_dump()
    options["modality"] = modality or run.read.modality
    data = read_dataset(place, **options, texts=texts)
    problems = {bad["path"]: bad["problem"] for bad in run.state.get("quarantined") or ()}
    return data.quarantined(problems) if problems else data


def _with_texts(run: FinishedRun, data: Dataset) -> Dataset:
    folder = as_path(data.path)
    if run.read.text_embeddings is None and not has_files(folder / "text_emb"):
        return data
    try:
        both = _read(run, folder, texts=True)
    except InputError as error:
        logger.warning("text embeddings are left out: %s", error)
        return data
    if both.texts_problem is not None:
        logger.warning("text embeddings are left out: %s", both.texts_problem)
    return both


def _with_images(run: FinishedRun, data: Dataset) -> Dataset:
    folder = as_path(data.path)
    if run.read.image_embeddings is None and not has_files(folder / "img_emb"):
        return data
    try:
        images = _read(run, folder, texts=False, modality="image")
        if [part.rows for part in images.parts] != [part.rows for part in data.parts]:
            raise InputError(f"{folder}: images and texts have other numbers of rows.")
    except InputError as error:
        logger.warning("image embeddings are left out: %s", error)
        return data
    parts = tuple(
        replace(part, embeddings=other.embeddings, text_embeddings=part.embeddings)
        for part, other in zip(data.parts, images.parts, strict=True)
    )
    return replace(data, parts=parts, modality="image")
