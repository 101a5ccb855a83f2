"""The output folder of a run: who may write into it, what is finished, what is published.

``run.json`` says which settings and which input the folder belongs to, and whether the run is
finished. Results are made under ``stages/`` and renamed at the end; ``results.json``
names them, see `results_list`. They reach the disk before the run is called finished.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Self

from dask_dedup.paths import AnyPath, absolute_name, as_path, is_remote
from dask_dedup.storage.checksums import FileDigest, digest_of_file, find_damage
from dask_dedup.storage.claim import Claim, remove_names
from dask_dedup.storage.files import digest_of, read_json, sync, write_aside, write_json
from dask_dedup.storage.folder_lock import FolderLock
from dask_dedup.storage.foreign_content import (
    changed_keys,
    refuse_foreign_results,
    refuse_foreign_stages,
    refuse_other_content,
    refuse_other_data,
)
from dask_dedup.storage.objects import (
    SCRATCH,
    check_writable,
    exists,
    move_folder,
    remove_file,
    remove_tree,
)
from dask_dedup.storage.results_list import RESULTS, Results, remove_others
from dask_dedup.storage.run_log import LOG
from dask_dedup.storage.stage import FILES, Stage, forget_file

__all__ = ["AUDIT_PAIRS", "AUDIT_QUERIES", "DECISIONS_FILE", "PAGE", "RunFolder", "work_folder"]

logger = logging.getLogger(__name__)

_TOOL = "dask_dedup"
_READ_BYTES = 2 << 30  # results up to here are read from end to end when they are asked for again
#: In OUT: the rows that the audit has sampled, and their true pairs.
AUDIT_QUERIES, AUDIT_PAIRS = "audit/queries.parquet", "audit/pairs.parquet"
#: In OUT: the page that shows the result.
PAGE = "report/index.html"
DECISIONS_FILE = "decisions.csv"  # in OUT, where the run was given decisions


class RunFolder(Claim):
    """One output folder of a run, claimed while it is open.

    Parameters
    ----------
    path : AnyPath
        Made if it is missing.
    settings : mapping
        All settings that the result depends on.
    fingerprint : str
        Of the input.
    overwrite : bool
        Begin anew, whatever an earlier run left.
    work : str, optional
        Folder or URL that the working files go under, in a folder of this run's own.
    break_lock : bool
        In a store: take over from a run on another machine that cannot be known to be dead.
    source : tuple of (str, sequence of str)
        Path and sketch of the data set: see `dask_dedup.data.sketch`.
    working : iterable of str
        Names of its working files.

    Raises
    ------
    OutputError
        On entry: the folder holds something else, results of another data set, links or files of
        the user where results go; or another run is writing into it.

    Attributes
    ----------
    state_name : str
        File that says whose the folder is; other commands' folders have another.
    result_folders, result_files : tuple of str
        What is there when a run has finished.
    optional_files : tuple of str
        Files, perhaps in a folder of their own, that only some runs have.
    other_files : tuple of str
        What else a run writes into the folder.
    own_names : str
        Regular expression of the names of files in the result folders.
    """

    state_name = "run.json"
    result_folders: tuple[str, ...] = ("audit", "clusters", "forest", "invalid")
    result_files: tuple[str, ...] = (
        "histogram.csv",
        "histogram.png",
        "settings.toml",
        "summary.json",
        RESULTS,
    )
    #: Beside the results, without a checksum.
    other_files: tuple[str, ...] = (LOG,)

    optional_files: tuple[str, ...] = (PAGE,)
    own_names = r"part-\d{5,}\.parquet|(queries|pairs)\.parquet"

    def __init__(
        self,
        path: AnyPath,
        settings: Mapping[str, Any],
        fingerprint: str,
        overwrite: bool = False,
        work: str | None = None,
        break_lock: bool = False,
        source: tuple[str, Sequence[str]] = ("", ()),
        working: Iterable[str] = (),
    ) -> None:
        super().__init__(path, self._check_content, FolderLock(path, break_lock))
        self.settings = settings
        self.fingerprint = fingerprint
        self.overwrite = overwrite
        self.stages = work_folder(path, work)  # folder of the working files
        #: Settings of the search whose forest is in OUT and is used; see `begin`.
        self.search: Mapping[str, Any] | None = None
        self.quarantined: list[dict[str, Any]] = []  # of the input: see `read_quarantined`
        self.working = frozenset({*working, SCRATCH})
        self._source = source
        self._published: dict[str, str] = {}  # folders, and the digests of their stages
        self._optional: list[str] = []  # files of results that only some runs have

    def __enter__(self) -> Self:
        super().__enter__()
        if self.overwrite:
            self._remove_own()
        return self

    @property
    def digest(self) -> str:
        """Digest of settings, input and this package's version."""
        return digest_of({"settings": dict(self.settings), **self._origin})

    @property
    def _origin(self) -> dict[str, str]:
        return {"input": self.fingerprint, "version": _own_version()}

    def is_finished(self) -> bool:
        """Return whether this very run has finished here before, and its results are whole.

        Raises
        ------
        OutputError
            It has, and a result is missing or damaged.
        """
        state = self._read_state()
        if not state.get("finished") or state.get("digest") != self.digest:
            return False
        are_small = Results(self.path).size_bytes <= _READ_BYTES
        Results(self.path).refuse_damage(self.result_folders, True, pages=are_small)
        if not are_small:
            logger.info("%s: by sizes and footers whole; status --verify reads it all", self.path)
        return True

    def kept_search(self) -> dict[str, Any] | None:
        """Return what is known of the search of OUT/forest, if input and version are the same."""
        state = self._read_state()
        is_same = all(state.get(name) == value for name, value in self._origin.items())
        search = state.get("search")
        return dict(search) if is_same and isinstance(search, Mapping) else None

    def refuse_damaged_search(self) -> None:
        """Raise OutputError where what another threshold is answered from is not whole."""
        state = self._read_state()
        if not state.get("finished") and state.get("digest") == self.digest:
            return  # interrupted, perhaps while it replaced them; its stages look at what they need
        Results(self.path).refuse_damage(("forest", "invalid", "audit"), pages=True)

    def begin(self, search: Mapping[str, Any] | None = None) -> None:
        """Claim the folder; log what differs from an earlier run here.

        ``search``: what is known of the search whose forest is kept; without, it is made anew.
        """
        check_writable(self.stages)
        self.search = search
        state = self._read_state()
        if state and state.get("digest") != self.digest:
            changed = changed_keys(state.get("settings", {}), self.settings)
            if state.get("input") != self.fingerprint:
                changed.append("the input files")
            if state.get("version") != _own_version():
                changed.append("the version of dask_dedup")
            logger.warning("%s: changed since the last run: %s", self.path, ", ".join(changed))
        remove_names(self.path, ("summary.json", *self.optional_files))
        self._write_state(finished=False)

    def note_quarantined(self, quarantined: list[dict[str, Any]]) -> None:
        """Note the files of the input that the next run is to go without."""
        self.quarantined = quarantined
        self._write_state(finished=False)

    @classmethod
    def read_quarantined(cls, path: AnyPath) -> list[dict[str, Any]]:
        """Return the files that the last run into ``path`` went without."""
        state = read_json(path / cls.state_name, sealed=True)
        found = state.get("quarantined") if isinstance(state, dict) else None
        return found if isinstance(found, list) else []

    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """Return a stage under ``stages/`` that depends on ``settings``, input and version."""
        assert name in self.working, f"{name}: would be taken for a file of the user"
        own = {**settings, **self._origin}
        digest = digest_of(own)

        def is_published(path: str, file_digest: FileDigest) -> bool:
            return Results(self.path).has_file(path, digest, file_digest)

        return Stage(self.stages / name, own, is_published)

    def publish(self, stage: Stage, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Move a folder that a stage has made to OUT, and note whose it is.

        Parameters
        ----------
        stage : Stage
        name : str
            Of the folder, in the stage's and in OUT.
        records : iterable of mapping
            Those of the stage's tasks: they name the files that there must be.

        Raises
        ------
        DamagedError
            A file is missing, or not what was written.
        """
        self.check_own()
        made, target = stage.folder / name, self.path / name
        files = {
            path.removeprefix(f"{name}/"): FileDigest(*digest)
            for record in records
            for path, digest in record[FILES].items()
            if path.startswith(f"{name}/")
        }
        self._published[name] = stage.digest
        if not exists(made):  # and the stage has looked at what is in OUT
            return
        wanted = {made / file: (f"{name}/{file}", digest) for file, digest in files.items()}
        damaged = [
            error
            for error in find_damage({path: digest for path, (_, digest) in wanted.items()})
            if not stage.is_published(*wanted[as_path(error.path)])
        ]
        if damaged:
            raise damaged[0]
        results = Results(self.path)
        is_ours = results.holds(name, stage.digest)  # some of it is in OUT already
        results.add_folder(name, stage.digest, files)
        move_folder(made, target, is_ours, self.check_after_pause)
        remove_others(target, files)  # a run before, killed between the two, has left its own
        if not is_remote(target):
            sync(target)
            sync(target.parent)

    def write_optional(self, name: str, text: str | None) -> None:
        """Write a file that only some runs have; None: remove it, if an earlier run has written it.

        A file of the user of this name, which no run has written, stays.
        """
        self.check_own()
        if text is not None:
            with write_aside(self.path / name, durable=True) as temporary:
                temporary.write_bytes(text.encode("utf-8"))
            self._optional.append(name)
        elif Results(self.path).lists(name):
            remove_file(self.path / name)

    def mend(self, path: str) -> bool:
        """Have a damaged working file made again: see `forget_file`."""
        return forget_file(self.stages, path)

    def finish(
        self,
        summary: Mapping[str, Any],
        keep_stages: bool,
        search: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the summary, declare the run finished, remove the working files.

        ``search``: what is to be known of OUT/forest to use it again.
        """
        self.check_own()
        self.search = search
        results = Results(self.path)
        for name, digest in self._published.items():
            assert results.holds(name, digest), f"{name} was published by another run"
        write_json(self.path / "summary.json", dict(summary), sealed=False)
        results.add_files(self._digests_of_files())
        self._write_state(finished=True)
        if not keep_stages:
            remove_tree(self.stages)

    def read_summary(self) -> dict[str, Any]:
        """Return the summary of the finished run."""
        return dict(read_json(self.path / "summary.json") or {})

    def _check_content(self) -> None:
        refuse_foreign_stages(self.stages, self.path, self.result_folders, self.working)
        if not self.path.is_dir():
            return
        state = self._read_state()
        if not state:
            refuse_other_content(self.path, state_name=self.state_name)
            return
        files = (*self.result_files, *self.optional_files, *self.other_files)
        refuse_foreign_results(self.path, self.result_folders, files, self.own_names)
        if not self.overwrite and state.get("input") != self.fingerprint:
            refuse_other_data(self.path, state.get("source"), *self._source)

    def _digests_of_files(self) -> dict[str, FileDigest]:
        """Return the digests of the single result files, once they have reached the disk."""
        there = [name for name in self.optional_files if exists(self.path / name)]
        results = (name for name in self.result_files if name != RESULTS)
        names = (*results, *there, *self._optional)
        files = {name: self.path / name for name in names}
        for path in files.values():
            if not is_remote(path):
                sync(path)
        return {name: digest_of_file(path) for name, path in files.items()}

    def _remove_own(self) -> None:
        remove_tree(self.stages)
        remove_tree(self.path / "stages")  # of a run without --work
        own = [*self.result_folders, *self.result_files, *self.optional_files, *self.other_files]
        own += [DECISIONS_FILE] if Results(self.path).lists(DECISIONS_FILE) else []
        own.append(self.state_name)
        remove_names(self.path, own)

    def _read_state(self) -> dict[str, Any]:
        """Return what our ``run.json`` says; empty where there is none, or another tool's."""
        state = read_json(self.path / self.state_name, sealed=True)
        return state if isinstance(state, dict) and state.get("tool") == _TOOL else {}

    def _write_state(self, finished: bool) -> None:
        write_json(
            self.path / self.state_name,
            {
                "tool": _TOOL,
                "finished": finished,
                "digest": self.digest,
                **self._origin,
                "stages": absolute_name(self.stages),
                "search": self.search,
                "quarantined": self.quarantined,
                "source": {"path": self._source[0], "sketch": list(self._source[1])},
                "settings": dict(self.settings),
            },
            durable=True,
        )


def work_folder(out: AnyPath, work: str | None) -> AnyPath:
    """Return the folder of a run's working files: in OUT, or one of its own under ``work``."""
    if work is None:
        return out / "stages"
    name = str(out) if is_remote(out) else str(out.absolute())
    return as_path(work) / f"dask-dedup-{digest_of({'out': name})}"


@cache
def _own_version() -> str:
    """Return this package's version, which takes milliseconds to look up."""
    return version("dask_dedup")
