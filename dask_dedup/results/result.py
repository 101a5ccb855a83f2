"""`open_result`: a finished run as one object.

What is large is lazy, on Dask, a partition a part of the data set; what is small is pandas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.report.histogram import read_histogram
from dask_dedup.report.notebook import result_html
from dask_dedup.results.cluster_files import ClusterFiles, list_files, read_partition, to_frame
from dask_dedup.results.finished_run import open_finished
from dask_dedup.results.keep_reasons import KeepReasons, open_reasons
from dask_dedup.results.show import Asked, find_members, nearest_first, path_of_rows, with_metadata
from dask_dedup.settings.run_settings import Settings, load_settings
from dask_dedup.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["Result", "open_result"]


class Result(Mapping[str, Any]):
    """What a run has found, as `dask_dedup.run` and `dask_dedup.open_result` return it.

    It is a mapping, too: of the summary, so that ``result["rows"]`` and ``dict(result)`` do what
    they do of ``result.summary``.

    Attributes
    ----------
    out : AnyPath
        Folder or URL of the run.
    summary : dict
        The content of ``summary.json``.
    is_new : bool
        Whether the call that has returned it has made it; false where it was there before.
    """

    def __init__(self, out: AnyPath, summary: Mapping[str, Any], is_new: bool = False) -> None:
        self.out = out
        self.is_new = is_new
        self.summary = dict(summary)

    def __getitem__(self, key: str) -> Any:
        return self.summary[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.summary)

    def __len__(self) -> int:
        return len(self.summary)

    def __repr__(self) -> str:
        return (
            f"<Result {self.out}: {self['rows']:,} rows, {self['duplicates']:,} duplicates at "
            f"{self['threshold']:g}>"
        )

    def _repr_html_(self) -> str:
        return result_html(str(self.out), self.summary, self.histogram)

    @cached_property
    def settings(self) -> Settings:
        """The settings of the run, from ``settings.toml``."""
        return load_settings(self.out / "settings.toml")

    @cached_property
    def histogram(self) -> pd.DataFrame:
        """``cluster_size``, ``clusters`` and ``rows`` (their product), by rising size: pandas."""
        return read_histogram(self.out / "histogram.csv")

    @cached_property
    def clusters(self) -> dd.DataFrame:
        """CLUSTERS and the user's columns, indexed by ``row_id``: lazy.

        One partition per part that has rows, known divisions. Columns of ours have numpy's types,
        the user's, and ``witness_row_id``, which has nulls, those of the files, as Arrow's. What
        is selected of the columns alone is read.
        """
        return _frame_of(self.files)

    @cached_property
    def invalid(self) -> dd.DataFrame:
        """Rows without a usable embedding, indexed by ``row_id``: ``invalid_reason`` and metadata.

        Lazy; partitions, divisions and types as of ``clusters``.
        """
        files = list_files(self.out / "invalid")
        return _frame_of(
            ClusterFiles(files.paths, self.files.starts, files.schema)  # divided as the clusters
        )

    @property
    def forest(self) -> dd.DataFrame:
        """FOREST, as `dask_dedup.read_forest` returns it: lazy, one partition.

        Raises
        ------
        SettingsError
            It holds quantized distances of a run with ``--no-verify``.
        """
        from dask_dedup.graph.components import read_forest

        return read_forest(self.out)

    @cached_property
    def keep_reasons(self) -> KeepReasons | None:
        """The rules by which copies stay, for `members`; None where the run had none."""
        return open_reasons(self.out, self.files, self.settings)

    def keep(self, dest: str | AnyPath, **rules: Any) -> Result:
        """Choose anew which copies stay, into another folder: `dask_dedup.keep` with its ``rules``.

        Examples
        --------
        ``result.keep("chosen", keep="width*height desc", protect="source = 'gold'")``
        """
        import dask_dedup  # what runs is above what reads

        return dask_dedup.keep(self.out, dest, **rules)

    def sweep(self, thresholds: Sequence[float] | None = None) -> pd.DataFrame:
        """Return what the run would have found at other thresholds: see `results.sweep`."""
        from dask_dedup.results.sweep import sweep

        return sweep(self.out, thresholds)

    def export(self, dest: str | AnyPath, **options: Any) -> dict[str, Any]:
        """Write the data set without its duplicates: `dask_dedup.export` with its ``options``."""
        from dask_dedup.results.export import export

        return export(self.out, dest, **options)

    def apply(self, metadata: str | AnyPath, dest: str | AnyPath, **options: Any) -> dict[str, Any]:
        """Apply what stays to other metadata: `dask_dedup.apply` with its ``options``."""
        from dask_dedup.results.apply import apply

        return apply(self.out, metadata, dest, **options)

    def report(self, dest: str | AnyPath | None = None, **options: Any) -> AnyPath:
        """Write the page that shows this result: `dask_dedup.results.report.report`'s ``options``.

        ``dest``: an HTML file or a folder; without it, ``out/report/index.html`` is made anew.
        """
        from dask_dedup.results.report import report

        return report(self.out, dest, **options)

    def at(self, threshold: float) -> dd.DataFrame:
        """Return the clusters at another threshold, from the forest alone.

        Parameters
        ----------
        threshold : float
            Cosine, from that of the search up; compared as float32, "at least".

        Returns
        -------
        dask DataFrame
            LABELS, as of `dask_dedup.label_components`: only rows in clusters of two or more. Lazy,
            one partition.

        Raises
        ------
        SettingsError
            The forest does not answer this threshold.
        """
        from dask_dedup.graph.components import label_components

        return label_components(self.forest, threshold)

    def members(
        self,
        row: int | None = None,
        url: str | None = None,
        cluster: int | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Return the members of the cluster of a row, of all rows with a URL, or of one cluster.

        Parameters
        ----------
        row : int, optional
        url : str, optional
            As it stands in the data set.
        cluster : int, optional
            Its ``cluster_id``. One of the three.
        limit : int, optional
            Members of each cluster, at most: what is asked for, the rows that stay for it, and
            the rows that go for these come before others.

        Returns
        -------
        DataFrame
            What `dask_dedup.results.show.find_members` says of each member, then its metadata.
            Ordered by cluster; in it the row that represents it, others that stay, and those that
            go, by falling similarity to the row that stays.

        Raises
        ------
        InputError
            There is no such row, URL or cluster.
        """
        asked = Asked(row, url, cluster)
        found = find_members(self.files, asked, self["threshold"], self.keep_reasons)
        if limit is not None:
            found = nearest_first(found, limit)
        return with_metadata(self.files, found)

    def path(self, row: int, other: int) -> pd.DataFrame | None:
        """Return the pairs through which two rows came together: a path in the forest.

        Parameters
        ----------
        row, other : int

        Returns
        -------
        DataFrame or None
            An edge a row, in order: ``from_row``, ``to_row``, ``similarity``, ``is_weakest``. The
            similarity of the weakest is the highest threshold at which the two are in one cluster
            (inside dense groups, from 0.999 up, a lower bound of it). Empty where the two are one
            row; None where nothing that was searched joins them.

        Raises
        ------
        InputError
            There is no such row.
        """
        lowest = self["threshold"] if self.get("is_verified", True) else -1.0
        return path_of_rows(self.out, self.files, row, other, lowest)

    @cached_property
    def files(self) -> ClusterFiles:
        """The files of ``clusters``, listed by their footers when they are first asked for."""
        return list_files(self.out / "clusters", self["rows"])


def open_result(out: str | AnyPath) -> Result:
    """Open what a finished run has written.

    Parameters
    ----------
    out : path or URL
        OUT of the run.

    Returns
    -------
    Result
        Its collections are lazy. The sizes and the ends of all files are read and compared with
        what was written: one small read a file.

    Raises
    ------
    OutputError
        It is of no run of this tool, of one that has not finished, or is damaged.
    """
    run = open_finished(out, RunFolder.result_folders, files=True)
    return Result(run.path, run.summary)


def _frame_of(files: ClusterFiles) -> dd.DataFrame:
    """Return the rows of some files as a Dask collection, a partition a file with rows."""
    import dask.dataframe as dd

    filled = files.filled
    return dd.from_map(
        read_partition,
        [files.paths[i] for i in filled],
        meta=to_frame(files.empty_table()).set_index("row_id"),
        divisions=(*(files.starts[i] for i in filled), files.rows - 1),
        enforce_metadata=False,  # an empty projection would raise
        label="read-clusters",
    )
