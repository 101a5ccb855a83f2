"""Candidates: the most duplicated pictures of a finished run, with their captions and copies.

A candidate is a group: a row that stays, and the rows that are dropped for it with a cosine at the
threshold or above. Its *k* is their number: how often the picture stands in the data set. A cluster
may be a theme of thousands of pictures, of which none is like all others; a group is one picture.

Pictures that a model was trained on often are those that it copies (arXiv 2305.08694, 2301.13188);
which of them it does copy is for `generate` and `score` to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.errors import DamagedError, OutputError, SettingsError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.results.finished_run import FinishedRun, open_finished
from dask_dedup.results.result_folder import ResultFolder
from dask_dedup.results.result_rows import read_result_rows
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks
from dask_dedup.storage.files import read_frame, write_aside, write_frame
from dask_dedup.storage.foreign_content import refuse_other_content
from dask_dedup.storage.results_list import RESULTS
from dask_dedup.storage.stage import Stage
from dask_dedup.verbatim.candidate_tasks import (
    collect_part,
    combine_groups,
    count_part,
    top_groups,
)

__all__ = ["CandidateFolder", "CandidateSettings", "find_candidates"]

CANDIDATES, CAPTIONS, MEMBERS = "candidates.parquet", "captions.parquet", "members.parquet"
_TABLE = "candidates.csv"
_STEPS = ("candidates", "generated", "training", "scores", "report")  # folders of DEST
_COUNT, _TOP, _COLLECT, _COMBINE = STAGES = ("count", "top", "collect", "combine")
_ROWS_PER_BUCKET = 1 << 24  # of the data set; a tenth of them, say, are dropped
_GROUPS_PER_BUCKET = 64


class CandidateFolder(ResultFolder):
    """The folder of candidates: see `ResultFolder`."""

    state_name = "candidates.json"
    result_files = (CANDIDATES, CAPTIONS, MEMBERS, _TABLE, "summary.json", RESULTS)

    def _check_content(self) -> None:
        # The folder above is taken for all four steps; once it is ours, the user may add to it.
        if not self._read_state():
            refuse_other_content(self.path.parent, _STEPS)
        super()._check_content()


@dataclass(frozen=True)
class CandidateSettings:
    """Which groups become candidates.

    Attributes
    ----------
    top : int
        How many, by falling k.
    smallest : int
        Least k.
    alike : float
        Least cosine of any copy to the row that stays; 0: that of the run.
    caption_length : int
        Characters of a caption, at least, that may be a prompt. A group without any is left out.
    members : int
        Copies of each candidate that are looked at later, at most; chosen by a hash, those that
        are not equal to the row that stays first.
    """

    top: int = 1000
    smallest: int = 2
    alike: float = 0.0
    caption_length: int = 1
    members: int = 32


def find_candidates(
    out: str | AnyPath,
    dest: str | AnyPath,
    settings: CandidateSettings | None = None,
    *,
    overwrite: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the most duplicated pictures of a finished run; computes.

    Parameters
    ----------
    out : path or URL
        Of the run.
    dest : path or URL
        Empty, new, or of these commands. Gets a folder ``candidates``; the other steps write beside
        it.
    settings : CandidateSettings, optional
    overwrite : bool
        Begin anew, whatever candidates an earlier call left in ``dest``.
    execute, progress
        See `dask_dedup.runtime.executor`.

    Returns
    -------
    dict
        The content of ``dest/candidates/summary.json``: how many ``groups`` there are of the least
        k and similarity, how many became ``candidates``, and how many that are as large are not, as
        they are ``without_caption``.

    Raises
    ------
    OutputError
        ``out`` is no finished run, its clusters are damaged, or ``dest`` holds something else.
    SettingsError

    Notes
    -----
    ``candidates.parquet`` has, by falling k: ``candidate`` (0 and up), ``row_id`` of the row that
    stays, ``k``, ``least_similarity`` (of a copy to it), ``distinct_captions``, and the columns of
    that row. ``captions.parquet``: ``candidate``, ``caption``, ``count``, ``is_prompt``, by falling
    count, at most 100 of each. ``members.parquet``: ``candidate``, ``row_id``, ``similarity``,
    ``url``, ``caption``, and the user's columns. ``candidates.csv`` is for reading.

    Tasks hold some columns of one part, or a bucket of some two million groups.
    """
    chosen, progress = settings or CandidateSettings(), progress or NoProgress()
    _check(chosen)
    run = open_finished(absolute_name(out), ["clusters"])
    folder_path = as_path(absolute_name(dest)) / "candidates"
    own = asdict(chosen)
    with CandidateFolder(folder_path, own, run.identity, (), STAGES, overwrite) as folder:
        if not folder.begin_unless_finished():
            return folder.read_summary()
        try:
            found = _Search(run, folder, chosen, execute, progress).do()
        except DamagedError as error:
            raise OutputError(
                f"{str(error).rstrip('.')}. Put the file back, or begin anew with --overwrite."
            ) from error
        finally:
            progress.close()
        for name, table in found.tables.items():
            write_frame(folder_path / name, table)
        with write_aside(folder_path / _TABLE) as temporary:
            _readable(found).to_csv(temporary, index=False)
        summary = {
            "run": str(run.path),
            "rows": run.rows,
            "threshold": float(run.summary["threshold"]),
            "linkage": run.summary.get("linkage", "components"),
            **found.counts,
            "settings": own,
        }
        folder.finish(summary, keep_stages=False)
        return summary


@dataclass(frozen=True)
class _Found:
    tables: Mapping[str, pa.Table]
    counts: Mapping[str, int]


class _Search:
    """One search for candidates: its stages."""

    def __init__(
        self,
        run: FinishedRun,
        folder: CandidateFolder,
        settings: CandidateSettings,
        execute: Execute,
        progress: Progress,
    ) -> None:
        self._run, self._folder, self._settings = run, folder, settings
        self._execute, self._progress = execute, progress
        self._threshold = max(settings.alike, float(run.summary["threshold"]))

    def do(self) -> _Found:
        """Do all stages: again with more groups, while too many have no caption."""
        files = [self._run.clusters_path(name) for name in self._run.names]
        counted, buckets = self._count(files)
        most = self._settings.top
        while True:
            groups, there = self._top(counted, buckets, most)
            captions, members = self._collect(files, groups)
            is_prompt = captions["caption"].str.len() >= self._settings.caption_length
            captions["is_prompt"] = is_prompt
            usable = groups[groups["row_id"].isin(captions["group"][is_prompt])]
            if len(usable) >= self._settings.top or len(groups) == there:
                break
            most *= 2
        usable = usable.head(self._settings.top).reset_index(drop=True)
        looked_at = len(groups)  # from the largest down, until there are enough
        if len(usable) == self._settings.top:
            last = usable["row_id"].iloc[-1]
            looked_at = int(np.flatnonzero(groups["row_id"] == last)[0]) + 1
        counts = {
            "groups": there,
            "candidates": len(usable),
            "without_caption": looked_at - len(usable),
        }
        return _Found(self._tables(usable, captions, members), counts)

    def _stage(self, name: str, **settings: Any) -> Stage:
        return self._folder.stage(name, {"threshold": self._threshold, **settings})

    def _do(self, stage: Stage, call: Any, tasks: dict[str, tuple], rows: int) -> list[dict]:
        self._progress.start(stage.folder.name, rows)
        records = stage.run(
            call, tasks, self._execute, lambda record: self._progress.advance(record["rows"])
        )
        self._progress.finish()
        return records

    def _count(self, files: Sequence[str]) -> tuple[list[str], int]:
        buckets = -(-self._run.rows // _ROWS_PER_BUCKET)
        stage = self._stage(_COUNT, buckets=buckets)
        tasks = {
            f"part-{i:05d}": (path, buckets, self._threshold, _file(stage, f"part-{i:05d}"))
            for i, path in enumerate(files)
        }
        self._do(stage, count_part, tasks, self._run.rows)
        return [str(_file(stage, name)) for name in tasks], buckets

    def _top(self, counted: Sequence[str], buckets: int, most: int) -> tuple[pd.DataFrame, int]:
        """Return the largest groups, and how many there are of any size that is wanted."""
        limits = (most, self._settings.smallest, self._threshold)
        stage = self._stage(_TOP, buckets=buckets, limits=list(limits))
        tasks = {
            f"bucket-{i:05d}": (counted, i, *limits, _file(stage, f"bucket-{i:05d}"))
            for i in range(buckets)
        }
        records = self._do(stage, top_groups, tasks, buckets)
        found = pd.concat([read_frame(_file(stage, name)) for name in tasks])
        found = found.sort_values(["k", "row_id"], ascending=[False, True], ignore_index=True)
        return found.head(most), sum(record["groups"] for record in records)

    def _collect(
        self, files: Sequence[str], groups: pd.DataFrame
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the captions and the members of some groups."""
        members, ids = self._settings.members, groups["row_id"].tolist()
        buckets = max(1, -(-len(groups) // _GROUPS_PER_BUCKET))
        common = {"groups": len(ids), "last": ids[-1:], "members": members}
        collect, combine = self._stage(_COLLECT, **common), self._stage(_COMBINE, **common)
        collect.prepare()
        chosen = collect.folder / "chosen.parquet"
        write_frame(chosen, groups[["row_id"]])
        tasks: dict[str, tuple] = {
            f"part-{i:05d}": (
                path,
                chosen,
                buckets,
                members,
                self._threshold,
                _file(collect, f"part-{i:05d}"),
            )
            for i, path in enumerate(files)
        }
        self._do(collect, collect_part, tasks, self._run.rows)
        parts = [str(_file(collect, name)) for name in tasks]
        pairs = [
            (_file(combine, f"captions-{i:05d}"), _file(combine, f"members-{i:05d}"))
            for i in range(buckets)
        ]
        tasks = {f"bucket-{i:05d}": (parts, i, members, *pair) for i, pair in enumerate(pairs)}
        self._do(combine, combine_groups, tasks, buckets)
        captions, found = zip(*[[read_frame(path) for path in pair] for pair in pairs], strict=True)
        return pd.concat(captions, ignore_index=True), pd.concat(found, ignore_index=True)

    def _tables(
        self, groups: pd.DataFrame, captions: pd.DataFrame, members: pd.DataFrame
    ) -> dict[str, pa.Table]:
        number = pd.Series(np.arange(len(groups)), groups["row_id"])
        distinct = captions.groupby("group")["distinct"].first()
        candidates = pd.DataFrame(
            {
                "candidate": np.arange(len(groups)),
                "row_id": groups["row_id"],
                "k": groups["k"],
                "least_similarity": groups["least"].astype(np.float32),
                "distinct_captions": groups["row_id"].map(distinct).astype(np.int64),
            }
        )
        captions = captions[captions["group"].isin(number.index)]
        captions = pd.DataFrame(
            {
                "candidate": captions["group"].map(number).astype(np.int64),
                "caption": captions["caption"],
                "count": captions["count"],
                "is_prompt": captions["is_prompt"],
            }
        ).sort_values("candidate", kind="stable", ignore_index=True)
        members = members[members["group"].isin(number.index)]
        members = pd.DataFrame(
            {
                "candidate": members["group"].map(number).astype(np.int64),
                "row_id": members["row_id"],
                "similarity": members["similarity"].astype(np.float32),
            }
        ).sort_values(
            ["candidate", "similarity", "row_id"], ascending=[True, False, True], ignore_index=True
        )
        return {
            CANDIDATES: self._with_columns(candidates),
            CAPTIONS: pa.Table.from_pandas(captions, preserve_index=False),
            MEMBERS: self._with_columns(members),
        }

    def _with_columns(self, rows: pd.DataFrame) -> pa.Table:
        """Return rows with what the data set has of them; names that are taken get a prefix."""
        table = pa.Table.from_pandas(rows, preserve_index=False)
        columns = self._run.user_columns()
        theirs = read_result_rows(self._run.path, rows["row_id"].to_numpy(np.int64), columns)
        for name in columns:
            own = name
            while own in table.column_names:
                own = f"source_{own}"
            table = table.append_column(theirs.schema.field(name).with_name(own), theirs[name])
        return table


def _file(stage: Stage, name: str) -> AnyPath:
    return stage.folder / f"{name}.parquet"


def _readable(found: _Found) -> pd.DataFrame:
    """Return the table for reading: the most frequent prompt of each candidate."""
    candidates = found.tables[CANDIDATES].select(
        ["candidate", "row_id", "k", "least_similarity", "distinct_captions", "url"]
    )
    captions = found.tables[CAPTIONS].to_pandas()
    first = captions[captions["is_prompt"]].groupby("candidate")["caption"].first()
    table = candidates.to_pandas()
    table["prompt"] = table["candidate"].map(first)
    return table


def _check(settings: CandidateSettings) -> None:
    for name, least in (("top", 1), ("smallest", 1), ("caption_length", 1), ("members", 0)):
        if getattr(settings, name) < least:
            raise SettingsError(
                f"{name.replace('_', '-')}: expected at least {least}, got "
                f"{getattr(settings, name)}."
            )
    if not 0 <= settings.alike <= 1:
        raise SettingsError(f"alike: expected a cosine from 0 to 1, got {settings.alike}.")
