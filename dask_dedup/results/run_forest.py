"""A finished run and its forest, as what is told from the forest opens them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dask_dedup.errors import OutputError
from dask_dedup.graph.forest_file import forest_path, read_range
from dask_dedup.graph.forest_range import SAME_SIMILARITY, ForestRange
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.files import read_json
from dask_dedup.storage.results_list import Results

__all__ = ["RunForest", "open_run_forest"]


class RunForest(NamedTuple):
    """A finished run.

    Attributes
    ----------
    path : AnyPath
        OUT.
    state : mapping
        Content of ``run.json``: settings, input, search.
    summary : mapping
        Content of ``summary.json``.
    """

    path: AnyPath
    state: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def valid_rows(self) -> int:
        """Rows with a usable embedding."""
        return int(self.summary["rows"]) - int(self.summary["invalid_rows"])

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


def open_run_forest(out: str | AnyPath) -> RunForest:
    """Open the folder of a finished run; reads small files, and the forest's footer.

    Raises
    ------
    OutputError
        There is no run, it is not finished, or its summary or forest is not what was written.
    """
    path = as_path(out)
    state = read_json(path / "run.json", sealed=True)
    if not isinstance(state, Mapping) or state.get("tool") != "dask_dedup":
        raise OutputError(f"{path}: holds no run: there is no run.json of dask_dedup.")
    if not state.get("finished"):
        raise OutputError(
            f"{path}: its run is not finished. The command that began it continues; "
            f"`dask-dedup status {path}` tells how far it is."
        )
    wrong = Results(path).find_damage(("forest",), files=("summary.json",))
    if wrong:
        raise OutputError(
            f"{str(wrong[0]).rstrip('.')}: the result of a finished run is not whole. Put the file "
            f"back, or run again with --overwrite."
        )
    return RunForest(path, state, read_json(path / "summary.json") or {})
