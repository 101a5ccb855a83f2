"""A finished run as others read it: what it was made from, and its clusters part by part."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.data.dataset import Dataset, read_dataset
from dask_dedup.errors import InputError, OutputError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.schema import own_columns
from dask_dedup.settings.run_settings import ReadSettings, load_settings
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import digest_of, read_json
from dask_dedup.storage.listing import has_files
from dask_dedup.storage.objects import open_parquet_source
from dask_dedup.storage.results_list import RESULTS, Results
from dask_dedup.storage.run_folder import RunFolder

__all__ = ["FinishedRun", "cluster_name", "open_finished", "open_table"]

logger = logging.getLogger(__name__)

_CLUSTERS = "clusters"


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a finished run, whose clusters are whole.

    Attributes
    ----------
    path : AnyPath
        OUT.
    summary : mapping
        The content of ``summary.json``.
    state : mapping
        The content of ``run.json``.
    read : ReadSettings
        How its data set was read.
    names : tuple of str
        Files of ``clusters``: one for each part that has rows, in their order.
    """

    path: AnyPath
    summary: Mapping[str, Any]
    state: Mapping[str, Any]
    read: ReadSettings
    names: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows of the data set."""
        return int(self.summary["rows"])

    @property
    def identity(self) -> str:
        """Hex digest: the same as long as the clusters are the same files."""
        content = read_json(self.path / RESULTS, sealed=True) or {}
        return digest_of({"run": self.state["digest"], "files": content["folders"][_CLUSTERS]})

    def clusters_path(self, name: str) -> str:
        """Return the path of one file of ``clusters``."""
        return str(self.path / _CLUSTERS / name)

    def schema(self) -> pa.Schema:
        """Return the schema of the clusters: that of their first file."""
        with open_table(self.clusters_path(self.names[0])) as file:
            return file.schema_arrow

    def own_columns(self) -> list[str]:
        """Return the columns that are the run's: they stand before the user's."""
        return own_columns(self.schema().names)

    def user_columns(self) -> list[str]:
        """Return the user's columns, ``url`` and ``caption`` included, if there are any."""
        names = self.schema().names
        return names[len(own_columns(names)) :]

    def open_dataset(self, dataset: str | AnyPath | None = None) -> Dataset:
        """Return the data set of the run, with images and texts as far as it has them.

        Parameters
        ----------
        dataset : path or URL, optional
            Where it lies now, with the same files and times; by default where it lay.

        Raises
        ------
        InputError
            It is gone, or has changed since.
        """
        place = as_path(dataset if dataset is not None else self.summary["dataset"])
        options = self.read.model_dump()
        try:
            data = self._without_quarantined(read_dataset(place, **options, texts=False))
        except InputError as error:
            raise InputError(
                f"{str(error).rstrip('.')}. The data set of {self.path} is read again for its "
                f"embeddings; if it lies elsewhere now, name that place (--dataset)."
            ) from error
        if data.fingerprint != self.state["input"]:
            raise InputError(
                f"{place}: has changed since the run into {self.path}, whose rows are known by "
                f"their position in it. Run again, or name the place of the unchanged data set "
                f"(--dataset)."
            )
        return self._with_other_modality(data, options)

    def _without_quarantined(self, data: Dataset) -> Dataset:
        problems = {bad["path"]: bad["problem"] for bad in self.state.get("quarantined") or ()}
        return data.quarantined(problems) if problems else data

    def _with_other_modality(self, data: Dataset, options: dict[str, Any]) -> Dataset:
        """Return the data set with the images as embeddings, and texts beside them."""
        if data.parts[0].embeddings.column is not None:
            return data
        folder = as_path(data.path)
        if options["modality"] == "image":
            if options["text_embeddings"] is None and not has_files(folder / "text_emb"):
                return data
            try:
                both = self._without_quarantined(read_dataset(folder, **options))
            except InputError as error:
                logger.warning("text embeddings are left out: %s", error)
                return data
            if both.texts_problem is not None:
                logger.warning("text embeddings are left out: %s", both.texts_problem)
            return both
        if options["image_embeddings"] is None and not has_files(folder / "img_emb"):
            return data
        try:
            images = read_dataset(folder, **{**options, "modality": "image"}, texts=False)
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


def open_finished(out: str | AnyPath) -> FinishedRun:
    """Open the folder of a finished run; reads some kilobytes of each file of its clusters.

    Raises
    ------
    OutputError
        It holds no run, one that is not finished, or clusters that are not whole.
    """
    path = as_path(out)
    state = read_json(path / RunFolder.state_name, sealed=True)
    if not isinstance(state, dict) or state.get("tool") != "dask_dedup":
        raise OutputError(f"{path}: holds no run of dask_dedup.")
    if not state.get("finished"):
        raise OutputError(
            f"{path}: its run is not finished. The same command as before continues it."
        )
    wrong = Results(path).find_damage((_CLUSTERS,))
    if wrong:
        raise OutputError(
            f"{str(wrong[0]).rstrip('.')}: the result of a finished run is not whole. Put the file "
            f"back, or run again with --overwrite."
        )
    names = (read_json(path / RESULTS, sealed=True) or {})["folders"][_CLUSTERS]["files"]
    return FinishedRun(
        path,
        read_json(path / "summary.json") or {},
        state,
        load_settings(path / "settings.toml").read,
        tuple(sorted(names)),
    )


def cluster_name(index: int) -> str:
    """Return the name of the file of ``clusters`` that a part has."""
    return f"part-{index:05d}.parquet"


def open_table(path: str | AnyPath) -> pq.ParquetFile:
    """Open a parquet file that a run has written; its pages are verified as they are read.

    Raises
    ------
    DamagedError
    """
    with damage(path):
        return pq.ParquetFile(open_parquet_source(path), page_checksum_verification=True)
