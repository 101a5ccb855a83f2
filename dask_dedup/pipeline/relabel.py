"""Another threshold from the forest of a finished run, without a new search.

A forest made at a search threshold has the clusters of every threshold from there up; OUT keeps
beside it what the stages after the search ask for: the invalid rows and the audit's true pairs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_dedup.data.finder_files import FinderFiles
from dask_dedup.data.part_list import write_parts
from dask_dedup.data.spans import Span
from dask_dedup.graph.forest_range import ForestRange
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.pipeline.job import Found, Job
from dask_dedup.pipeline.stages import KEPT
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.adopt import adopt_results
from dask_dedup.storage.files import read_frame
from dask_dedup.storage.run_folder import AUDIT_PAIRS, AUDIT_QUERIES, RunFolder

__all__ = ["KeptFiles", "Source", "describe_search", "find_kept", "found_before"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptFiles(FinderFiles):
    """What a finished run has published.

    Attributes
    ----------
    folder : str
        OUT.
    parts_folder : str
        Of the file of the filled parts, which is no result.
    """

    folder: str
    parts_folder: str

    @property
    def parts_path(self) -> str:
        """The file of the filled parts."""
        return str(as_path(self.parts_folder) / "parts.json")

    def invalid_paths(self, span: Span) -> list[AnyPath]:
        """Return the files of a span's rows without a usable embedding: one a part."""
        folder = as_path(self.folder) / "invalid"
        return [folder / f"part-{part.index:05d}.parquet" for part in span.parts if part.rows]

    def audit_paths(self) -> list[AnyPath]:
        """Return the file of the audit's true pairs."""
        return [as_path(self.folder) / AUDIT_PAIRS]

    def query_ids(self) -> np.ndarray:
        """Return the rows that the audit has sampled."""
        return read_frame(as_path(self.folder) / AUDIT_QUERIES)["row_id"].to_numpy()


@dataclass(frozen=True)
class Source:
    """Another finished run, whose forest is labelled.

    Attributes
    ----------
    path : AnyPath
        OUT of that run.
    search : mapping
        Facts of its search, from `find_kept`.
    """

    path: AnyPath
    search: Mapping[str, Any]

    def hand_over(self, folder: AnyPath) -> None:
        """Put what labelling needs into the folder of a run that has begun."""
        adopt_results(self.path, folder, ("forest", "invalid", "audit"))


def describe_search(found: Found, settings: Settings) -> dict[str, Any]:
    """Return what is to be known of a search for others to use its forest: JSON."""
    return {
        "settings": settings.for_result(),
        "search_threshold": settings.search_threshold,
        "answers": found.answers,
        "edges": found.edges,
        "counts": dict(found.counts),
        "audit_seconds": found.audit_seconds,
    }


def find_kept(folder: RunFolder, settings: Settings) -> dict[str, Any] | None:
    """Return the description of the search whose forest is in OUT, if it answers these settings.

    Parameters
    ----------
    folder : RunFolder
        Open, and not begun.
    settings : Settings
    """
    search = folder.kept_search()
    if (
        search is None
        or folder.overwrite
        or search["search_threshold"] > settings.search_threshold
        or _searched(search["settings"]) != _searched(settings.for_result())
    ):
        return None
    if search.get("answers") is None:
        logger.info(
            "a new search is needed: %s holds quantized distances of a run with --no-verify, not "
            "cosines",
            folder.path / "forest",
        )
        return None
    known = ForestRange(*search["answers"])
    if not known.answers(settings.clusters.threshold):
        logger.info(
            "a new search is needed, and its forest replaces the one in %s, which %s",
            folder.path / "forest",
            known.describe(),
        )
        return None
    folder.refuse_damaged_search()
    return search


def _searched(settings: Mapping[str, Any]) -> Any:
    """Return the settings that the search depends on, but for its threshold, as JSON has them."""
    tables = json.loads(json.dumps(settings))
    del tables["clusters"], tables["join"]["search_threshold"]
    tables.pop("keep", None)
    for name in ("url_column", "caption_column", "columns", "drop_columns"):
        tables["read"].pop(name, None)
    return tables


def found_before(job: Job, search: Mapping[str, Any]) -> Found:
    """Return an earlier search as if it had been done now."""
    files = KeptFiles(str(job.folder.path), str(job.folder.stages / KEPT))
    write_parts(job.data.filled_parts, as_path(files.parts_path))
    return Found(
        files,
        [],
        int(search["edges"]),
        {name: search[name] for name in ("settings", "search_threshold")},
        dict(search["counts"]),
        float(search["audit_seconds"]),
        job.settings.clusters.threshold,
        ForestRange(*search["answers"]),
    )
