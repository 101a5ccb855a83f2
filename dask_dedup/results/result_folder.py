"""The folder that something made from a finished run is written to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_dedup.errors import OutputError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.results_list import RESULTS
from dask_dedup.storage.run_folder import RunFolder

__all__ = ["ResultFolder"]


class ResultFolder(RunFolder):
    """The output folder of an export or of an application: see `RunFolder`.

    One that is finished with other settings is refused; one that was interrupted goes on with what
    depends on none of the changed ones.

    Parameters
    ----------
    path : AnyPath
    settings : mapping
    fingerprint : str
        Of the run that it is made from, and of whatever else is read.
    folders : iterable of str
        What is there in the end.
    stages : iterable of str
    overwrite : bool
    """

    result_files: tuple[str, ...] = ("summary.json", RESULTS)
    optional_files = ()
    #: All folders that such a folder may have: `--overwrite` removes them.
    possible_folders: tuple[str, ...] = ()

    def __init__(
        self,
        path: AnyPath,
        settings: Mapping[str, Any],
        fingerprint: str,
        folders: tuple[str, ...],
        stages: tuple[str, ...],
        overwrite: bool = False,
    ) -> None:
        super().__init__(path, settings, fingerprint, overwrite, working=stages)
        self.result_folders = folders

    def refuse_others(self) -> None:
        """Raise OutputError where the folder is finished, from another run or other settings."""
        state = self._read_state()
        if state.get("finished") and state.get("digest") != self.digest:
            raise OutputError(
                f"{self.path}: was made from another result, with other settings or by another "
                f"version. Choose another folder, or begin anew with --overwrite."
            )

    def _remove_own(self) -> None:
        folders = self.result_folders
        self.result_folders = tuple({*folders, *self.possible_folders})
        super()._remove_own()
        self.result_folders = folders
