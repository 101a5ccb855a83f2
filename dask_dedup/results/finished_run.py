"""A finished run as others read it: what it was made from, its clusters, and its forest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import OutputError
from dask_dedup.graph.forest_file import forest_path, read_range
from dask_dedup.graph.forest_range import SAME_SIMILARITY, ForestRange
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.settings.run_settings import ReadSettings, load_settings
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import digest_of, read_json
from dask_dedup.storage.objects import open_parquet_source
from dask_dedup.storage.results_list import RESULTS, Results
from dask_dedup.storage.run_folder import RunFolder

__all__ = ["FinishedRun", "cluster_name", "open_finished", "open_table", "read_state"]

_CLUSTERS = "clusters"


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a finished run; see `open_finished`.

    Attributes
    ----------
    path : AnyPath
        OUT.
    state : mapping
        The content of ``run.json``: settings, input, search.
    summary : mapping
        The content of ``summary.json``.
    """

    path: AnyPath
    state: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Rows of the data set."""
        return int(self.summary["rows"])

    @property
    def valid_rows(self) -> int:
        """Rows with a usable embedding."""
        return self.rows - int(self.summary["invalid_rows"])

    @cached_property
    def read(self) -> ReadSettings:
        """How its data set was read."""
        return load_settings(self.path / "settings.toml").read

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Files of ``clusters``: one for each part that has rows, in their order."""
        return tuple(sorted(self._listed_clusters()["files"]))

    @property
    def identity(self) -> str:
        """Hex digest: the same as long as the clusters are the same files."""
        return digest_of({"run": self.state["digest"], "files": self._listed_clusters()})

    def _listed_clusters(self) -> dict[str, Any]:
        content = read_json(self.path / RESULTS, sealed=True) or {}
        return content["folders"][_CLUSTERS]

    def clusters_path(self, name: str) -> str:
        """Return the path of one file of ``clusters``."""
        return str(self.path / _CLUSTERS / name)

    def schema(self) -> pa.Schema:
        """Return the schema of the clusters: that of their first file."""
        with open_table(self.clusters_path(self.names[0])) as file:
            return file.schema_arrow

    def own_columns(self) -> list[str]:
        """Return the columns that are the run's: they stand before the user's."""
        names = self.schema().names
        return names[: names.index("url")]

    def user_columns(self) -> list[str]:
        """Return the user's columns, ``url`` and ``caption`` included."""
        names = self.schema().names
        return names[names.index("url") :]

    @property
    def forest_path(self) -> AnyPath:
        """The file of the forest."""
        return forest_path(self.path)

    def forest_range(self) -> ForestRange:
        """Return the thresholds that the forest answers.

        One that does not say may have been searched with dense groups: it answers none at 0.999 or
        above.

        Raises
        ------
        SettingsError
            It holds quantized distances of a run with ``--no-verify``: it answers none.
        DamagedError
            It cannot be read.
        """
        known = read_range(self.forest_path)
        return known or ForestRange(float(self.summary["search_threshold"]), SAME_SIMILARITY)


def open_finished(
    out: str | AnyPath, folders: Collection[str] = (), *, files: bool = False
) -> FinishedRun:
    """Open the folder of a finished run; reads two small files.

    Parameters
    ----------
    out : path or URL
    folders : collection of str
        Those of the result that are checked, ``clusters`` for one: that each of their files is
        there, of its size and with its end. One small read a file.
    files : bool
        Check the single files of the result, too.

    Raises
    ------
    OutputError
        It holds no run, one that is not finished, or what is checked is not whole.
    """
    path = as_path(out)
    state = read_state(path)
    if not state.get("finished"):
        raise OutputError(
            f"{path}: its run is not finished. The command that began it continues; "
            f"`dask-dedup status {path}` tells how far it is."
        )
    Results(path).refuse_damage(folders, files)
    summary = read_json(path / "summary.json")
    if not isinstance(summary, Mapping):
        raise OutputError(
            f"{path / 'summary.json'}: is missing or damaged: the result of a finished run is not "
            f"whole. Put the file back, or begin anew with --overwrite."
        )
    return FinishedRun(path, state, summary)


def read_state(out: AnyPath) -> Mapping[str, Any]:
    """Return the content of a run's ``run.json``, finished or not.

    Raises
    ------
    OutputError
        There is none.
    """
    state = read_json(out / RunFolder.state_name, sealed=True)
    if not isinstance(state, Mapping) or state.get("tool") != "dask_dedup":
        raise OutputError(
            f"{out}: holds no run: there is no {RunFolder.state_name} of dask_dedup. Give the "
            f"folder that `dask-dedup run` wrote into."
        )
    return state


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
