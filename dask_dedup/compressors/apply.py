"""Compressing a data set: each part by a task, written in the layout it was read from."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dask_dedup.compressors.base import (
    Compressor,
    digest_tensors,
    find_model,
    load_model,
    save_model,
)
from dask_dedup.compressors.fit import views_of
from dask_dedup.data.dataset import Dataset
from dask_dedup.data.part_names import names_of_files
from dask_dedup.data.parts import Part, read_rows
from dask_dedup.errors import InputError, OutputError, SettingsError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks
from dask_dedup.storage.checksums import FileDigest, digest_of_file
from dask_dedup.storage.files import open_once, write_aside
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import exists, local_copy, remove_tree
from dask_dedup.storage.results_list import RESULTS
from dask_dedup.storage.run_folder import RunFolder
from dask_dedup.storage.stage import FILES
from dask_dedup.vectors.device import choose_device, says_when_full

__all__ = ["CompressFolder", "compress_dataset", "write_compressed"]

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 64 << 20  # of raw rows in memory at a time, in float32
_STAGE = "compress"  # the only one, and its folder among the working files
_FOLDERS = {"image": "img_emb", "text": "text_emb"}


class CompressFolder(RunFolder):
    """The output folder of a compression: see `RunFolder`; other settings are refused."""

    state_name = "compress.json"
    result_files = ("summary.json", RESULTS)
    optional_files = ()
    other_files = ()
    own_names = r".*\.(npy|parquet|safetensors|json)"  # those of the input

    def __init__(
        self, path: AnyPath, settings: Mapping[str, Any], fingerprint: str, overwrite: bool = False
    ) -> None:
        super().__init__(path, settings, fingerprint, overwrite, working=(_STAGE,))
        modalities = (_FOLDERS[name] for name in settings["modalities"])
        self.result_folders = ("metadata", "model", *modalities)

    def refuse_others(self) -> None:
        """Raise OutputError where the folder is of other settings, another model or data set."""
        state = self._read_state()
        if state and state.get("digest") != self.digest:
            raise OutputError(
                f"{self.path}: was compressed from another data set, by another model, with other "
                f"settings or by another version. Choose another folder, or begin anew with "
                f"--overwrite."
            )

    def _remove_own(self) -> None:
        for name in _FOLDERS.values():  # also those of modalities that are no longer asked for
            remove_tree(self.path / name)
        super()._remove_own()


def compress_dataset(
    dataset: Dataset,
    model: Compressor | str | AnyPath,
    out: str | AnyPath,
    *,
    modality: str | None = None,
    dtype: str = "float16",
    device: str = "cpu",
    threads: int = 1,
    overwrite: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compress the embeddings of a data set, part by part; computes.

    Parameters
    ----------
    dataset : Dataset
    model : Compressor or path
    out : path or URL
        A new or empty folder, or one in which the same compression was interrupted. It becomes
        a data set: ``img_emb``, ``text_emb`` or both, with the files' names; ``metadata``, hard
        links to the files read, or copies where the disk is another; ``model``; and
        ``summary.json``.
    modality : str, optional
        ``image``, ``text`` or ``both``; by default what the model was fitted on.
    dtype : str
        ``float16`` or ``float32``: of the files written.
    device, threads : str, int
        Of each task; ``cuda`` and ``auto`` are experimental.
    overwrite : bool
        Begin anew, whatever an earlier compression left in ``out``.
    execute, progress
        See `dask_dedup.runtime.executor`.

    Returns
    -------
    dict
        Content of ``summary.json``: ``rows``, and for each modality ``zero_rows``: rows without a
        usable embedding, which stay unusable, as zeros.

    Raises
    ------
    InputError, OutputError, SettingsError
    """
    progress = progress or NoProgress()
    if not isinstance(model, Compressor):
        model = load_model(as_path(model))
    header = model.header
    device = choose_device(device)
    modality = modality or header.modality
    if dtype not in ("float16", "float32"):
        raise SettingsError(f"dtype: expected float16 or float32, got {dtype!r}.")
    views = views_of(dataset, modality)
    if views[0].dim != header.dim_in:
        raise InputError(
            f"{dataset.path}: the embeddings have dimension {views[0].dim}, but the model was "
            f"fitted on {header.dim_in}."
        )
    settings = {
        "modalities": [view.modality for view in views],
        "dtype": dtype,
        "model": header.model_dump(exclude={"statistics"}),
        "tensors": digest_tensors(model),
    }
    with CompressFolder(as_path(out), settings, dataset.fingerprint, overwrite) as folder:
        folder.refuse_others()
        if folder.is_finished():
            logger.info("%s: finished before with these settings; nothing to do", out)
            return folder.read_summary()
        folder.begin()
        return _write(folder, views, model, dtype, device, threads, execute, progress)


def _write(
    folder: CompressFolder,
    views: list[Dataset],
    model: Compressor,
    dtype: str,
    device: str,
    threads: int,
    execute: Execute,
    progress: Progress,
) -> dict[str, Any]:
    stage = folder.stage(_STAGE, folder.settings)
    stage.prepare()
    save_model(model, stage.folder / "model", overwrite=exists(stage.folder / "model"))
    tasks = {}
    for view in views:
        names = names_of_files([part.embeddings.path for part in view.parts], ".npy")
        for part in view.parts:
            path = stage.folder / _FOLDERS[view.modality] / names[part.index]
            name = f"{view.modality}-{part.index:05d}"
            tasks[name] = (part, str(stage.folder / "model"), path, dtype, device, threads)
    progress.start(_STAGE, len(views) * views[0].rows)
    records = stage.run(
        write_compressed,
        tasks,
        execute,
        lambda record: progress.advance(record["rows"]),
        lambda record: progress.skip(record["rows"]),
    )
    progress.finish()
    copied: dict[str, FileDigest] = {}
    described = [part for part in views[0].parts if part.metadata_path]
    names = names_of_files([part.metadata_path for part in described], ".parquet")
    for part, name in zip(described, names, strict=True):
        target = stage.folder / "metadata" / name
        _link(str(local_copy(part.metadata_path)), target)
        copied[f"metadata/{name}"] = digest_of_file(target)
    for name in names_in(stage.folder / "model") or ():
        copied[f"model/{name}"] = digest_of_file(stage.folder / "model" / name)
    made = folder.result_folders if described else folder.result_folders[1:]  # without metadata
    for name in made:
        folder.publish(stage, name, [*records, {FILES: copied}])
    zero_rows = {
        view.modality: sum(
            record["zero_rows"]
            for name, record in zip(tasks, records, strict=True)
            if name.startswith(view.modality)
        )
        for view in views
    }
    summary = {
        "dataset": absolute_name(views[0].path),
        "rows": views[0].rows,
        "zero_rows": zero_rows,
        "dtype": dtype,
        "model": model.header.model_dump(exclude={"statistics"}),
    }
    folder.finish(summary, keep_stages=False)
    return summary


@says_when_full
def write_compressed(
    part: Part,
    model_path: str,
    path: AnyPath,
    dtype: str,
    device: str,
    threads: int,
    block_bytes: int = _BLOCK_BYTES,
) -> Mapping[str, int]:
    """Compress one part's embeddings into one .npy file, a block of rows at a time.

    Parameters
    ----------
    block_bytes : int
        Of a block, in float32.

    Returns
    -------
    dict
        ``rows`` and ``zero_rows``.
    """
    torch.set_num_threads(threads)
    model = _open_model(model_path, device)
    file = part.embeddings
    step = max(1, block_bytes // (4 * max(file.dim, model.dim_out)))
    zero_rows = 0
    with write_aside(path, durable=True) as temporary, open(temporary, "wb") as out:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": (file.rows, model.dim_out),
        }
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, file.rows, step):
            block = model.transform(read_rows(file, start, min(start + step, file.rows)))
            zero_rows += int((~block.any(axis=1)).sum())
            out.write(block.astype(dtype).tobytes())
    return {"rows": file.rows, "zero_rows": zero_rows}


def _open_model(path: str, device: str) -> Compressor:
    """Read the model once per worker and device."""
    load = {"cpu": _load_on_cpu, "cuda": _load_on_cuda}[device]
    return open_once(load, find_model(path))


def _load_on_cpu(path: AnyPath) -> Compressor:
    return load_model(path.parent, device="cpu")


def _load_on_cuda(path: AnyPath) -> Compressor:
    return load_model(path.parent, device="cuda")


def _link(source: str, target: AnyPath) -> None:
    """Link a file, or copy it where links cannot go."""
    with write_aside(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
