"""Fitting a compressor of any kind on a data set's seeded sample: the driver.

Each span's rows of the sample are read by a task of their own and travel to the caller a wave of
tasks at a time, so that what is in memory is the sample and one wave; the fit itself is one piece
of work in the calling process, where the device is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
import torch
from dask.delayed import delayed

from dask_dedup.compressors.base import Compressor, ModelHeader
from dask_dedup.compressors.network import NetworkCompressor
from dask_dedup.compressors.network_settings import NetworkSettings
from dask_dedup.compressors.pca_compressor import PcaCompressor, fit_uncentred_axes
from dask_dedup.compressors.train import train_network
from dask_dedup.data.dataset import Dataset
from dask_dedup.data.spans import Span, cut_spans
from dask_dedup.errors import InputError, SettingsError
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks, ignore_result
from dask_dedup.vectors.device import choose_device
from dask_dedup.vectors.sample import hash_rows, sample_row_ids, split_rows
from dask_dedup.vectors.unit import prepare_block

__all__ = ["fit_compressor", "views_of"]

_PURPOSE, _SPLIT_PURPOSE = 5, 6  # of the samples: see `vectors.sample`
_WAVE_BYTES = 256 << 20  # of sampled rows on their way
_PACKAGES = ("dask_dedup", "torch", "numpy")


def fit_compressor(
    dataset: Dataset,
    kind: str,
    dim: int,
    *,
    modality: str = "image",
    settings: NetworkSettings | None = None,
    seed: int = 0,
    device: str = "cpu",
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> Compressor:
    """Fit a compressor on a seeded sample of all parts; computes.

    The sample is the rows of smallest hash(seed, row_id), gathered in ``row_id`` order, without
    those that are unusable in a modality that is asked for; the validation rows are those of
    smallest hash of another kind. Neither depends on the parts.

    Parameters
    ----------
    dataset : Dataset
    kind : str
        ``pca``: axes that keep most of the squared length, no mean removed. ``mse``: a network
        whose rows can be decoded with least squared error. ``snip``: a network that keeps the
        similarities in random subsets. All give rows at unit length.
    dim : int
        Dimension of the compressed rows; at most that of the embeddings.
    modality : str
        ``image``, ``text``, or ``both``: one model for images and texts. Networks are trained on
        both; a PCA, and the one they start from, has the images' axes.
    settings : NetworkSettings, optional
    seed : int
    device : str
        ``cpu``, or, experimental, ``cuda`` or ``auto``: where a network is trained, and where the
        model that is returned computes. A PCA is always fitted on the CPU.
    execute, progress
        See `dask_dedup.runtime.executor`.

    Returns
    -------
    Compressor

    Raises
    ------
    InputError
        The data set lacks a modality, or has too few usable rows.
    SettingsError
    """
    settings, progress = settings or NetworkSettings(), progress or NoProgress()
    device = choose_device(device)
    views = views_of(dataset, modality)
    dim_in = views[0].dim
    if kind not in ("pca", "mse", "snip"):
        raise SettingsError(f"kind: expected pca, mse or snip, got {kind!r}.")
    if not 1 <= dim <= dim_in:
        raise SettingsError(
            f"dim: expected 1 to {dim_in}, the dimension of the embeddings, got {dim}."
        )
    if settings.clip_weight and (modality != "both" or kind == "pca"):
        raise SettingsError(
            "clip_weight: the contrastive term is between images and texts in training; it needs "
            "modality both, and kind mse or snip."
        )
    row_ids, samples = _gather_sample(views, settings.sample_rows, seed, execute, progress)
    least = 1 if kind == "pca" else 4
    if len(row_ids) < least:
        raise InputError(
            f"{dataset.path}: {len(row_ids)} of {min(settings.sample_rows, dataset.rows)} sampled "
            f"rows are usable (neither zero, NaN nor infinite); {kind} needs at least {least}."
        )
    statistics: dict = {"sampled_rows": len(row_ids)}

    def header() -> ModelHeader:
        return ModelHeader(
            kind=kind,  # type: ignore[arg-type]  # checked above, as is the modality
            dim_in=dim_in,
            dim_out=dim,
            modality=modality,  # type: ignore[arg-type]
            seed=seed,
            settings=settings.model_dump(),
            statistics=statistics,
            data={
                "path": dataset.path,
                "rows": dataset.rows,
                "fingerprint": dataset.fingerprint,
            },
            versions={name: version(name) for name in _PACKAGES},
        )

    if kind == "pca":
        progress.start("fit", len(row_ids))
        axes, share = _with_threads(settings.threads, samples[0], dim)
        progress.advance(len(row_ids))
        progress.finish()
        statistics["length_share"] = share
        return PcaCompressor(header(), axes, device)

    held_out = _split(row_ids, settings.validation_share, seed)
    training = int((~held_out).sum())
    statistics |= {"training_rows": training, "validation_rows": len(row_ids) - training}
    progress.start("train", training * settings.epochs)
    trained = train_network(
        samples, held_out, kind, dim, settings, seed=seed, device=device, on_rows=progress.advance
    )
    progress.finish()
    statistics |= trained.statistics
    return NetworkCompressor(header(), trained.network, device)


def views_of(dataset: Dataset, modality: str) -> list[Dataset]:
    """Return the data set as it is seen in each modality asked for.

    Raises
    ------
    SettingsError
        Not ``image``, ``text`` or ``both``.
    InputError
        A modality is missing, or the two differ in dimension: one encoder takes both.
    """
    if modality not in ("image", "text", "both"):
        raise SettingsError(f"modality: expected image, text or both, got {modality!r}.")
    names = ["image", "text"] if modality == "both" else [modality]
    views = [dataset.view(name) for name in names]
    if len(views) == 2 and views[0].dim != views[1].dim:
        raise InputError(
            f"{dataset.path}: images have dimension {views[0].dim}, texts {views[1].dim}. "
            f"Modality both needs one joint space."
        )
    return views


def _gather_sample(
    views: Sequence[Dataset],
    size: int,
    seed: int,
    execute: Execute,
    progress: Progress,
    wave_bytes: int = _WAVE_BYTES,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Read the sample's usable rows at unit length: ``row_id`` and one array a modality."""
    chosen = sample_row_ids(views[0].rows, size, seed, _PURPOSE)
    row_ids = np.empty(len(chosen), np.int64)
    samples = [np.empty((len(chosen), view.dim), np.float32) for view in views]
    spans_of_views = [cut_spans(view.filled_parts) for view in views]
    pieces = [
        ([spans[span.index] for spans in spans_of_views], ids)
        for span, ids in split_rows(chosen, spans_of_views[0])
    ]
    filled = 0
    progress.start("sample", len(chosen))
    for wave in _waves(pieces, 4 * len(views) * views[0].dim, wave_bytes):
        tasks = [delayed(_read_usable)(spans, ids) for spans, ids in wave]
        for ids, blocks in execute(tasks, ignore_result):
            stop = filled + len(ids)
            row_ids[filled:stop] = ids
            for sample, block in zip(samples, blocks, strict=True):
                sample[filled:stop] = block
            filled = stop
        progress.advance(sum(len(ids) for _, ids in wave))
    progress.finish()
    return row_ids[:filled], [sample[:filled] for sample in samples]


def _waves(
    pieces: Sequence[tuple[list[Span], np.ndarray]], row_bytes: int, wave_bytes: int
) -> Iterator[list[tuple[list[Span], np.ndarray]]]:
    """Split pieces into runs of no more than a wave's bytes, or of one piece."""
    wave: list[tuple[list[Span], np.ndarray]] = []
    held = 0
    for piece in pieces:
        size = len(piece[1]) * row_bytes
        if wave and held + size > wave_bytes:
            yield wave
            wave, held = [], 0
        wave.append(piece)
        held += size
    if wave:
        yield wave


def _read_usable(spans: Sequence[Span], row_ids: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return those of a span's rows that are usable in every modality, at unit length."""
    blocks = [prepare_block(span.embeddings.gather(row_ids)) for span in spans]
    usable = np.logical_and.reduce([block.reason == 0 for block in blocks])
    keep = torch.from_numpy(usable)
    return row_ids[usable], [
        (block.rows[keep] / block.lengths[keep, None]).numpy() for block in blocks
    ]


def _split(row_ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which rows are held out: at least two, and at least two are not."""
    count = min(max(2, round(share * len(row_ids))), len(row_ids) - 2)
    order = np.argsort(hash_rows(row_ids, seed, _SPLIT_PURPOSE), kind="stable")
    held_out = np.zeros(len(row_ids), bool)
    held_out[order[:count]] = True
    return held_out


def _with_threads(threads: int, sample: np.ndarray, dim: int) -> tuple[np.ndarray, float]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return fit_uncentred_axes(sample, dim)
    finally:
        torch.set_num_threads(before)
