"""The decisions of a run put to files of somebody's copy of the data: all stages of it.

`dask_dedup.results.apply` does it to tables, `dask_dedup.results.export_webdataset` to tars. What
each step does stands in `dask_dedup.results.matching`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_dedup.data.readable_text import readable
from dask_dedup.errors import DamagedError, InputError, OutputError, SettingsError
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text
from dask_dedup.results.finished_run import FinishedRun, open_table
from dask_dedup.results.matching import (
    AMBIGUOUS,
    DROPPED,
    KEYLESS,
    VERDICTS,
    Counted,
    DecidedPart,
    find_present,
    gather_verdicts,
    match_bucket,
    note_present,
    scatter_decisions,
    scatter_keys,
)
from dask_dedup.results.result_folder import ResultFolder
from dask_dedup.results.sizes import MATCHED_ROWS
from dask_dedup.results.source_files import SourceFile
from dask_dedup.runtime.executor import Execute, Progress
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.stage import Stage

__all__ = [
    "AMBIGUOUS_CHOICES",
    "STAGES",
    "UNMATCHED_FOLDERS",
    "Application",
    "Outcome",
    "choose_ambiguous",
    "write_source",
]

#: What becomes of rows whose key stands for rows that stay and rows that are dropped.
AMBIGUOUS_CHOICES = ("keep", "drop", "error")
#: Rows of one side only.
UNMATCHED_FOLDERS = ("unmatched_metadata", "unmatched_result")
_DECIDE, _KEYS, _PRESENT, _NOTE, _AGAIN, _MATCH, _WRITE = STAGES = (
    "decisions",
    "keys",
    "present",
    "present-parts",
    "decisions-again",
    "match",
    "write",
)


@dataclass(frozen=True)
class Outcome:
    """What has been matched and written.

    Attributes
    ----------
    counts : dict
        For the summary.
    results : list of (Stage, str, list of dict)
        Folders to publish: their stage, name and records.
    ambiguous : list of AnyPath
        Files of the keys with both verdicts: one a bucket.
    """

    counts: dict[str, Any]
    results: list[tuple[Stage, str, list[dict[str, Any]]]]
    ambiguous: list[AnyPath]


@dataclass(frozen=True)
class Application:
    """Decisions, and the files that they are put to.

    Attributes
    ----------
    run : FinishedRun
    sources : sequence of SourceFile
    names : sequence of str
        What each file is called in ``target``.
    target : str
        Folder of what is written.
    key : tuple of str, or int
        Columns of the clusters; or samples per shard, where keys are counted.
    ambiguous : str
        One of `AMBIGUOUS_CHOICES`.
    what : str
        ``kept`` rows are written, or ``dropped`` ones alone, or ``all``.
    matched_rows : int
        Of both sides in a bucket.
    are_names : bool
        Keys of the files are names in a tar; the result's may be without folders.
    """

    run: FinishedRun
    sources: Sequence[SourceFile]
    names: Sequence[str]
    target: str
    key: tuple[str, ...] | int
    ambiguous: str = "keep"
    what: str = "kept"
    matched_rows: int = MATCHED_ROWS
    are_names: bool = False

    def do(
        self, folder: ResultFolder, execute: Execute, progress: Progress, versions: Any
    ) -> Outcome:
        """Do all stages; nothing is published yet.

        Parameters
        ----------
        folder : ResultFolder
            Begun.
        execute, progress
        versions : JSON
            Of the files: what a stage depends on.

        Raises
        ------
        InputError
            ``ambiguous`` is ``error``, and some keys are; or keys without folders are those of
            samples in several.
        OutputError
            A file of the clusters is damaged.
        """
        try:
            return self._do(folder, execute, progress, versions)
        except DamagedError as error:
            raise OutputError(
                f"{str(error).rstrip('.')}. Put the file back, or begin anew with --overwrite."
            ) from error

    def _do(
        self, folder: ResultFolder, execute: Execute, progress: Progress, versions: Any
    ) -> Outcome:
        parts = self._parts()
        about = [source.about_rows() for source in self.sources]
        buckets = max(1, -(-(self.run.rows + sum(about)) // self.matched_rows))
        key = self.key if isinstance(self.key, int) else list(self.key)
        common = {"key": key, "buckets": buckets, "files": versions}

        def stage(name: str, **more: Any) -> Stage:
            return folder.stage(name, {**common, **more})

        def run(one: Stage, call: Any, tasks: dict[str, tuple], rows: int) -> list[dict[str, Any]]:
            progress.start(one.folder.name, rows)
            records = one.run(call, tasks, execute, lambda r: progress.advance(r["rows"]))
            progress.finish()
            return records

        numbers = [f"part-{part.number:05d}" for part in parts]
        files = [f"file-{i:05d}" for i in range(len(self.sources))]
        halves = [f"bucket-{i:05d}" for i in range(buckets)]

        def scatter(one: Stage, present: Sequence[str] = ()) -> list[dict[str, Any]]:
            tasks = {
                name: (part, key, buckets, one.folder / f"{name}.parquet", present)
                for name, part, key in zip(numbers, parts, self._keys_of(parts), strict=True)
            }
            return run(one, scatter_decisions, tasks, self.run.rows)

        decide = stage(_DECIDE)
        decided = scatter(decide)
        cut = self.are_names and not any(record["has_folder"] for record in decided)
        keys = stage(_KEYS, without_folders=cut)
        source_records = run(
            keys,
            scatter_keys,
            {
                name: (source, i, buckets, keys.folder / f"{name}.parquet", cut)
                for i, (name, source) in enumerate(zip(files, self.sources, strict=True))
            },
            sum(about),
        )
        source_rows = [record["rows"] for record in source_records]
        of_sources = [str(keys.folder / f"{name}.parquet") for name in files]
        of_parts = [str(decide.folder / f"{name}.parquet") for name in numbers]

        is_kept = self.ambiguous != "drop"
        present, note = stage(_PRESENT, keep=is_kept), stage(_NOTE, keep=is_kept)
        found = [present.folder / f"{name}.parquet" for name in halves]
        run(
            present,
            find_present,
            {
                name: (i, of_parts, of_sources, path, is_kept)
                for i, (name, path) in enumerate(zip(halves, found, strict=True))
            },
            self.run.rows,
        )
        there = [note.folder / f"{name}.safetensors" for name in numbers]
        run(
            note,
            note_present,
            {
                name: (part, [str(one) for one in found], path)
                for name, part, path in zip(numbers, parts, there, strict=True)
            },
            self.run.rows,
        )
        again = stage(_AGAIN, keep=is_kept)
        scatter(again, [str(path) for path in there])
        of_parts = [str(again.folder / f"{name}.parquet") for name in numbers]

        match = stage(_MATCH, keep=is_kept)
        kinds = ("verdicts", "ambiguous", *UNMATCHED_FOLDERS)
        targets = {
            name: {
                kind: match.folder / (f"{kind}/{place}" if kind in UNMATCHED_FOLDERS else
                                      f"{kind}-{place}")
                for kind in kinds
            }
            for name, place in ((half, f"part-{half[-5:]}.parquet") for half in halves)
        }  # fmt: skip
        matched = run(
            match,
            match_bucket,
            {
                name: (i, of_parts, of_sources, list(self.names), targets[name])
                for i, name in enumerate(halves)
            },
            sum(source_rows),
        )
        counts = self._counts(decided, source_records, matched)
        ambiguous = [targets[name]["ambiguous"] for name in halves]
        self._refuse_ambiguous(counts, ambiguous)
        self._refuse_folders(matched)

        write = stage(_WRITE, ambiguous=self.ambiguous, what=self.what)
        verdicts = [str(targets[name]["verdicts"]) for name in halves]
        written = run(
            write,
            write_source,
            {
                name: (
                    source,
                    i,
                    source_rows[i],
                    verdicts,
                    self.ambiguous == "drop",
                    self.what,
                    write.folder / self.target / self.names[i],
                )
                for i, (name, source) in enumerate(zip(files, self.sources, strict=True))
            },
            sum(source_rows),
        )
        rows = sum(record["written"] for record in written)
        if self.what == "kept":
            stay = ["kept", "unmatched", "keyless", "without_witness"]
            stay += [] if self.ambiguous == "drop" else ["ambiguous"]
            assert rows == sum(counts["metadata"][name] for name in stay), "rows were lost"
        counts["rows"] = rows
        return Outcome(
            counts,
            [(match, name, matched) for name in UNMATCHED_FOLDERS]
            + [(write, self.target, written)],
            ambiguous,
        )

    def _parts(self) -> list[DecidedPart]:
        parts, start = [], 0
        for i, name in enumerate(self.run.names):
            path = self.run.clusters_path(name)
            with open_table(path) as file:
                rows = file.metadata.num_rows
            parts.append(DecidedPart(i, path, start, start + rows))
            start += rows
        assert start == self.run.rows, f"{start} rows in clusters, {self.run.rows} in the summary"
        return parts

    def _keys_of(self, parts: Sequence[DecidedPart]) -> list[tuple[str, ...] | Counted]:
        if not isinstance(self.key, int):
            return [self.key] * len(parts)
        keys: list[tuple[str, ...] | Counted] = []
        shard = 0
        for part in parts:
            keys.append(Counted(shard, self.key))
            shard += -(-(part.row_stop - part.row_start) // self.key)
        return keys

    def _counts(
        self,
        decided: Sequence[dict[str, Any]],
        sources: Sequence[dict[str, Any]],
        matched: Sequence[dict[str, Any]],
    ) -> dict[str, Any]:
        verdicts = np.sum([record["verdicts"] for record in matched], axis=0).tolist()
        keyless = sum(record["keyless"] for record in sources)
        assert verdicts[KEYLESS] == 0
        verdicts[KEYLESS] = keyless
        rows = sum(record["rows"] for record in sources)
        assert sum(verdicts) == rows, f"{sum(verdicts)} verdicts on {rows} rows"
        without = sum(record["unmatched_result_rows"] for record in matched)
        keyed = sum(record["result_rows"] for record in matched)
        result_keyless = sum(record["keyless"] for record in decided)
        assert keyed + result_keyless == self.run.rows
        return {
            "metadata_rows": rows,
            "metadata": dict(zip(VERDICTS, verdicts, strict=True)),
            "result_rows": self.run.rows,
            "result": {
                "matched": keyed - without,
                "unmatched": without,
                "keyless": result_keyless,
            },
            "repeated_keys": sum(record["repeated_keys"] for record in matched),
            "ambiguous_keys": sum(record["ambiguous_keys"] for record in matched),
        }

    def _refuse_ambiguous(self, counts: dict[str, Any], paths: Sequence[AnyPath]) -> None:
        rows = counts["metadata"]["ambiguous"]
        if self.ambiguous != "error" or not rows:
            return
        examples: list[str] = []
        for path in paths:
            with open_table(str(path)) as file:
                table = file.read()
            asked = table.filter(np.asarray(table["metadata_rows"]) > 0)
            examples += readable(asked["key"].slice(0, 3)).to_pylist()
            if len(examples) >= 3:
                break
        raise InputError(
            f"{rows:,} rows have a key that stands for rows that stay and for rows that are "
            f"dropped: {', '.join(map(repr, examples[:3]))}, …; {counts['ambiguous_keys']:,} keys "
            f"do. Choose what becomes of them with --ambiguous keep or --ambiguous drop, or name "
            f"a key of more columns."
        )

    def _refuse_folders(self, matched: Sequence[dict[str, Any]]) -> None:
        found = [record["in_folders"] for record in matched]
        keys = sum(count for count, _ in found)
        if not keys:
            return
        first, second = next(names for count, names in found if count)
        own = "counted keys have" if isinstance(self.key, int) else f"{self.key[0]!r} has"
        raise InputError(
            f"{first} and {second} are two samples of one key, as {own} no folders in "
            f"{self.run.path} ({count_text(keys, 'such key')}): which of them was dropped is not "
            f"known. Name a column of keys with the folders that the tars have (--key), or the "
            f"tars of one folder alone (--shards)."
        )


def choose_ambiguous(choice: str) -> str:
    """Return a choice that there is.

    Raises
    ------
    SettingsError
    """
    if choice not in AMBIGUOUS_CHOICES:
        raise SettingsError(f"ambiguous: expected {', '.join(AMBIGUOUS_CHOICES)}, got {choice!r}.")
    return choice


def write_source(
    source: SourceFile,
    number: int,
    rows: int,
    verdicts: Sequence[str],
    is_ambiguous_dropped: bool,
    what: str,
    target: AnyPath,
) -> dict[str, int]:
    """Write one file again without the rows that are dropped; returns ``rows`` and ``written``."""
    found = gather_verdicts(number, rows, verdicts)
    dropped = found == DROPPED
    if is_ambiguous_dropped:
        dropped |= found == AMBIGUOUS
    chosen = {"kept": ~dropped, "dropped": dropped, "all": np.ones(rows, np.bool_)}[what]
    with write_aside(target, durable=True) as temporary:
        source.write(chosen, temporary)
    return {"rows": rows, "written": int(chosen.sum())}
