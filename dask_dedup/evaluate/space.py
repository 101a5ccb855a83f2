"""How well the joint space of images and texts is kept: raw, compressed, quantized and decoded.

Each model compresses images, texts and class texts alike. With a factory the *targets* are
quantized as well, as an index keeps them: the images in zero-shot classification and in text →
image retrieval, the texts in image → text retrieval. Queries and class texts stay as they are
(asymmetric, as an index searches). Quantizers are trained on rows that are not evaluated.

What is evaluated is held in memory: 12 bytes a value and row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.part_rows import gather_by_row
from dask_dedup.errors import InputError
from dask_dedup.evaluate.evaluation_settings import SpaceSettings
from dask_dedup.evaluate.factories import choose_centroids, fill_factories
from dask_dedup.evaluate.indexes import code_bytes, decode_rows
from dask_dedup.evaluate.models import check_model_names, open_model, transform_rows
from dask_dedup.evaluate.retrieval import retrieval_recall
from dask_dedup.evaluate.row_table import LabelledRows
from dask_dedup.evaluate.zeroshot import zeroshot_accuracy
from dask_dedup.ivf.train_base import train_base
from dask_dedup.paths import AnyPath
from dask_dedup.runtime.executor import NoProgress, Progress
from dask_dedup.vectors.sample import hash_rows, sample_row_ids

__all__ = ["choose_rows", "measure_retrieval", "measure_zeroshot"]

_TRAIN_PURPOSE, _ROWS_PURPOSE = 12, 13  # of the samples: see vectors.sample
_ALL = "all"  # the group of all rows, against all classes


class _Variant(NamedTuple):
    """One way to keep rows: its name and size, and what it makes of rows."""

    details: dict[str, Any]
    query: Any  # stored rows -> float32 rows, as a query is
    target: Any  # stored rows -> float32 rows, as the index keeps them


def choose_rows(dataset: Dataset, settings: SpaceSettings) -> np.ndarray:
    """Return a seeded sample of rows to evaluate: int64, sorted."""
    return sample_row_ids(dataset.rows, settings.rows, settings.seed, _ROWS_PURPOSE)


def measure_zeroshot(
    dataset: Dataset,
    classes: np.ndarray,
    rows: LabelledRows,
    settings: SpaceSettings,
    models_folder: AnyPath,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure zero-shot classification of images; computes.

    Parameters
    ----------
    dataset : Dataset
    classes : float array, shape (c, dim)
        Text embedding of each class, in the images' space.
    rows : LabelledRows
    settings : SpaceSettings
    models_folder : AnyPath
        Where models that are fitted here are kept.
    device : str
        Where networks are trained: ``cpu``, or, experimental, ``cuda`` or ``auto``.

    Returns
    -------
    list of dict
        For each model, factory and group of rows: "model", "dim", "factory" (empty: not
        quantized), "bytes_per_vector", "group" ("all", or a value of the table's column), and the
        measures of `zeroshot_accuracy`.

    Raises
    ------
    InputError, SettingsError
    """
    images = dataset.view("image")
    if classes.shape[1] != images.dim:
        raise InputError(
            f"classes: embeddings have dimension {classes.shape[1]}, but {dataset.path} has "
            f"{images.dim}. Both must come from one space."
        )
    stored = gather_by_row(images.filled_parts, rows.row_ids)
    everything = (np.ones(len(stored), bool), np.arange(len(classes)))
    found = []
    for variant in _variants(images, rows.row_ids, settings, models_folder, device, progress):
        targets, texts = variant.target(stored), variant.query(classes)
        for group, (mask, present) in {_ALL: everything, **rows.groups}.items():
            labels = np.searchsorted(present, rows.labels[mask])
            measures = zeroshot_accuracy(targets[mask], texts[present], labels)
            found.append({**variant.details, "group": group, **measures})
    return found


def measure_retrieval(
    dataset: Dataset,
    row_ids: np.ndarray,
    settings: SpaceSettings,
    models_folder: AnyPath,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure retrieval between images and texts of some rows, both ways; computes.

    Parameters
    ----------
    row_ids : int64 array, sorted
        The pool: each row's own partner is sought among all of it.

    Returns
    -------
    list of dict
        For each model, factory and direction: as in `measure_zeroshot`, with "direction"
        ("image → text" or "text → image") and the measures of `retrieval_recall`.
    """
    views = {name: dataset.view(name) for name in ("image", "text")}
    if views["image"].dim != views["text"].dim:
        raise InputError(
            f"{dataset.path}: images have dimension {views['image'].dim}, texts "
            f"{views['text'].dim}. Retrieval needs one space for both."
        )
    stored = {name: gather_by_row(view.filled_parts, row_ids) for name, view in views.items()}
    found = []
    for source, target in (("image", "text"), ("text", "image")):
        for variant in _variants(
            views[target], row_ids, settings, models_folder, device, progress, whole=views["image"]
        ):
            measures = retrieval_recall(
                variant.query(stored[source]), variant.target(stored[target])
            )
            found.append({**variant.details, "direction": f"{source} → {target}", **measures})
    return found


def _variants(
    view: Dataset,
    evaluated: np.ndarray,
    settings: SpaceSettings,
    models_folder: AnyPath,
    device: str,
    progress: Progress | None,
    whole: Dataset | None = None,
) -> Iterator[_Variant]:
    """Yield each model, plain and with each factory; ``view`` has the targets' embeddings."""
    check_model_names(settings.models)
    progress = progress or NoProgress()
    whole = whole or view
    modality = "both" if _has_texts(whole) else "image"
    training = None
    centroids = choose_centroids(view.rows, settings.centroids)
    progress.start("models", len(evaluated) * len(settings.models))
    for spec in settings.models:
        named = open_model(
            spec, whole, models_folder, modality=modality, seed=settings.seed, device=device
        )
        model, dim = named.model, named.model.dim_out

        def query(stored: np.ndarray, model: Any = model) -> np.ndarray:
            return transform_rows(model, stored)[0]

        details = {"model": named.name, "dim": dim, "factory": "", "bytes_per_vector": 4 * dim}
        yield _Variant(details, query, query)
        for factory in fill_factories(settings.factories, settings.m, centroids, dim):
            if training is None:
                training = _training_rows(view, evaluated, settings)
            rows, usable = transform_rows(model, training)
            index = train_base(rows[usable], factory, seed=settings.seed)

            def target(stored: np.ndarray, model: Any = model, index: Any = index) -> np.ndarray:
                rows, usable = transform_rows(model, stored)
                rows[usable] = decode_rows(index, rows[usable])
                return rows

            size = {"factory": factory, "bytes_per_vector": code_bytes(index)}
            yield _Variant({**details, **size}, query, target)
        progress.advance(len(evaluated))
    progress.finish()


def _training_rows(view: Dataset, evaluated: np.ndarray, settings: SpaceSettings) -> np.ndarray:
    """Read a seeded sample of the rows that are not evaluated; of all where there are no others."""
    wanted = settings.train_rows + len(evaluated)
    ids = np.setdiff1d(sample_row_ids(view.rows, wanted, settings.seed, _TRAIN_PURPOSE), evaluated)
    if not len(ids):
        ids = evaluated
    order = np.argsort(hash_rows(ids, settings.seed, _TRAIN_PURPOSE), kind="stable")
    return gather_by_row(view.filled_parts, np.sort(ids[order[: settings.train_rows]]))


def _has_texts(dataset: Dataset) -> bool:
    return all(part.text_embeddings is not None for part in dataset.filled_parts)
