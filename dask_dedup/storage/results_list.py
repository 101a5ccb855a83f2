"""What a run has published in OUT: ``results.json`` names every file, its size and its checksum.

Each result folder belongs to one stage of one run, by its digest, whatever the names of the folders
that it came from. An entry is written before its folder gets its name: a run that was killed
between the two finds the folder still among the working files.

Cost: 100 bytes a file; to look at the results, one small read a file (of a store, one listing).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dask_dedup.errors import DamagedError, OutputError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.storage.checksums import FileDigest, check_file, find_damage
from dask_dedup.storage.files import read_json, sync, write_json
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import exists, remove_file

__all__ = ["RESULTS", "Results", "remove_others"]

RESULTS = "results.json"


class Results:
    """The results in one output folder.

    Parameters
    ----------
    path : AnyPath
        OUT.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        content = read_json(path / RESULTS, sealed=True)
        self._is_readable = isinstance(content, dict)
        content = content if isinstance(content, dict) else {}
        self._folders: dict[str, Any] = dict(content.get("folders") or {})
        self._files: dict[str, Any] = dict(content.get("files") or {})

    def add_folder(self, name: str, digest: str, files: Mapping[str, FileDigest]) -> None:
        """Note a folder that is about to get its name: whose it is, and its files."""
        self._folders[name] = {"digest": digest, "files": {k: list(v) for k, v in files.items()}}
        self._write()

    def add_files(self, files: Mapping[str, FileDigest]) -> None:
        """Note the single files of a finished run."""
        self._files = {name: list(digest) for name, digest in files.items()}
        self._write()

    def add_file(self, name: str, digest: FileDigest) -> None:
        """Note one single file of a finished run, beside the others."""
        self._files[name] = list(digest)
        self._write()

    def holds(self, name: str, digest: str) -> bool:
        """Return whether a folder is that of a stage with this digest."""
        entry = self._folders.get(name)
        return entry is not None and entry["digest"] == digest

    def lists(self, name: str) -> bool:
        """Return whether a single file is a result of a finished run."""
        return name in self._files

    def entry(self, name: str) -> tuple[str, dict[str, FileDigest]]:
        """Return the digest of a folder's stage, and its files.

        Raises
        ------
        DamagedError
            There is no such folder.
        """
        if name not in self._folders:
            path = self.path / name
            raise DamagedError(f"{path}: is not listed in {RESULTS}.", str(path))
        entry = self._folders[name]
        return entry["digest"], {file: FileDigest(*one) for file, one in entry["files"].items()}

    def has_file(self, path: str, digest: str, file_digest: FileDigest) -> bool:
        """Return whether ``folder/file`` is a result of a stage with this digest, and whole."""
        name, _, file = path.partition("/")
        if not self.holds(name, digest) or file not in self._folders[name]["files"]:
            return False
        try:
            check_file(self.path / path, file_digest)
        except DamagedError:
            return False
        return True

    @property
    def size_bytes(self) -> int:
        """What all result folders take."""
        return sum(
            digest[0] for entry in self._folders.values() for digest in entry["files"].values()
        )

    def find_damage(
        self, folders: Iterable[str], files: bool | Collection[str] = False, pages: bool = False
    ) -> list[DamagedError]:
        """Return what is wrong with some result folders, and with the single ``files``.

        ``files``: all, none, or these. ``pages``: read parquet files from end to end; otherwise
        only sizes and tails are compared.
        """
        if not self._is_readable:
            path = self.path / RESULTS
            wrong = "is damaged" if exists(path) else "is missing"
            return [DamagedError(f"{path}: {wrong}; it lists the files of the result.", str(path))]
        wanted: dict[AnyPath, list[int]] = {}
        others: list[DamagedError] = []
        for name in folders:
            if name not in self._folders:
                path = self.path / name
                return [DamagedError(f"{path}: is not listed in {RESULTS}.", str(path))]
            for file, digest in self._folders[name]["files"].items():
                wanted[self.path / name / file] = digest
            for other in self.others(name):
                path = self.path / name / other
                others.append(DamagedError(f"{path}: is not of this result.", str(path)))
        for name in () if isinstance(files, bool) else files:
            if name not in self._files:
                path = self.path / name
                return [DamagedError(f"{path}: is not listed in {RESULTS}.", str(path))]
        if files:
            wanted |= {
                self.path / name: digest
                for name, digest in self._files.items()
                if files is True or name in files
            }
        return [*find_damage(wanted, wanted if pages else ()), *others]

    def refuse_damage(
        self, folders: Iterable[str], files: bool | Collection[str] = False, pages: bool = False
    ) -> None:
        """Raise OutputError where `find_damage` finds some."""
        wrong = self.find_damage(folders, files, pages)
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise OutputError(
                f"{str(wrong[0]).rstrip('.')}{more}: the result of a finished run is not whole. "
                f"Put the file back, or begin anew with --overwrite."
            )

    def others(self, name: str) -> list[str]:
        """Return what is in a result folder and not listed."""
        there = names_in(self.path / name) or []
        return [one for one in there if one not in self._folders.get(name, {}).get("files", {})]

    def _write(self) -> None:
        content = {"folders": self._folders, "files": self._files}
        write_json(self.path / RESULTS, content, durable=True)
        if not is_remote(self.path):
            sync(self.path)


def remove_others(folder: AnyPath, files: Iterable[str]) -> None:
    """Remove the files of a result folder that are not of a result."""
    for name in set(names_in(folder) or ()) - set(files):
        remove_file(folder / name)
