"""A finished run as others read it: what it was made from, its clusters, and its forest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import OutputError
from dask_dedup.graph.forest_file import forest_path, read_range
from dask_dedup.graph.forest_range import SAME_SIMILARITY, ForestRange
from dask_dedup.paths import AnyPath, as_path, is_inside
from dask_dedup.schema import own_columns
from dask_dedup.settings.run_settings import ReadSettings
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import digest_of, read_json
from dask_dedup.storage.objects import exists, open_parquet_source
from dask_dedup.storage.results_list import RESULTS, Results
from dask_dedup.storage.run_folder import RunFolder

__all__ = [
    "FinishedRun",
    "cluster_name",
    "in_part_order",
    "open_finished",
    "open_table",
    "read_state",
]

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
        known = self.state["settings"]["read"]
        return ReadSettings(**known, skip_bad_parts=bool(self.state.get("quarantined")))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Files of ``clusters``: one for each part that has rows, in their order."""
        return tuple(in_part_order(self._listed_clusters()["files"]))

    @property
    def identity(self) -> str:
        """Hex digest: the same as long as the clusters are the same files."""
        return digest_of({"run": self.state["digest"], "files": self._listed_clusters()})

    def _listed_clusters(self) -> dict[str, Any]:
        content = read_json(self.path / RESULTS, sealed=True) or {}
        return content["folders"][_CLUSTERS]

    def refuse_inside(self, dest: AnyPath) -> None:
        """Raise OutputError where a place is the run's own folder, or lies in it.

        The run could not be made anew there: it takes only its own files for results.
        """
        if is_inside(dest, self.path):
            raise OutputError(
                f"{dest}: is the finished run itself, or lies in it. Name another folder."
            )

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
    out: str | AnyPath,
    folders: Collection[str] = ("forest",),
    *,
    files: bool | Collection[str] = ("summary.json",),
) -> FinishedRun:
    """Open the folder of a finished run; reads some small files.

    Parameters
    ----------
    out : path or URL
    folders : collection of str
        Those of the result that are checked, ``clusters`` for one: that each of their files is
        there, of its size and with its end. One small read a file.
    files : bool or collection of str
        Single files of the result that are checked, too: these, or all, or none.

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
            f"`dask-dedup status {path}` says how far it is."
        )
    Results(path).refuse_damage(folders, files)
    return FinishedRun(path, state, read_json(path / "summary.json") or {})


def read_state(out: AnyPath) -> Mapping[str, Any]:
    """Return the content of a run's ``run.json``, finished or not.

    Raises
    ------
    OutputError
        There is none, or it is damaged.
    """
    state = read_json(out / RunFolder.state_name, sealed=True)
    if not isinstance(state, Mapping) or state.get("tool") != "dask_dedup":
        name = RunFolder.state_name
        if exists(out / name):
            raise OutputError(
                f"{out}: holds no run that can be read: {name} is damaged, or not of dask_dedup. "
                f"Put the file back, or run into another folder."
            )
        raise OutputError(
            f"{out}: holds no run: there is no {name} of dask_dedup. Give the folder that "
            f"`dask-dedup run` wrote into."
        )
    return state


def in_part_order(names: Iterable[str]) -> list[str]:
    """Return names of `cluster_name` by their numbers: past 99,999 they have more digits.

    Examples
    --------
    >>> in_part_order(["part-100000.parquet", "part-99999.parquet"])
    ['part-99999.parquet', 'part-100000.parquet']
    """
    return sorted(names, key=lambda name: (len(name), name))


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
