"""The paper's curves and tables for one data set: every evaluation in turn, into one folder.

Each step has a folder of its own, is kept when it is finished, and continues when it was stopped:
``pairs/`` (all pairs above a cosine), ``components.json``, ``pareto/``, ``zeroshot/`` and
``retrieval/`` (those two where a data set has text embeddings), ``duplicates/`` (a run by each
finder) and ``verbatim/`` (candidates for verbatim copies).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from dask_dedup.data.dataset import Dataset
from dask_dedup.errors import SettingsError
from dask_dedup.evaluate.components import compare_components, read_edges
from dask_dedup.evaluate.evaluation_folder import finish, is_finished, open_folder
from dask_dedup.evaluate.evaluation_settings import ParetoSettings, SpaceSettings, load_table
from dask_dedup.evaluate.models import model_identity
from dask_dedup.evaluate.pareto import measure_pareto
from dask_dedup.evaluate.row_table import read_classes, read_row_ids, read_row_labels
from dask_dedup.evaluate.space import choose_rows, measure_retrieval, measure_zeroshot
from dask_dedup.evaluate.truth import TruthSettings, find_truth
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.runtime.executor import Execute, NoProgress, Progress, compute_tasks
from dask_dedup.storage.files import read_json, write_aside, write_json

__all__ = [
    "ComponentSettings",
    "DuplicateSettings",
    "FindDuplicates",
    "PaperSettings",
    "RetrievalSettings",
    "ZeroshotSettings",
    "load_paper",
    "measure_paper",
]


class ComponentSettings(BaseModel):
    """``[components]``: the edges that are labelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[float, Field(gt=-1, le=1)] = 0.95


class ZeroshotSettings(SpaceSettings):
    """``[zeroshot]``: as `SpaceSettings`, and the files, named relative to the data set."""

    classes: str = "class_text_emb.npy"
    labels: str = "labels.parquet"
    row_column: str = "row"
    label_column: str = "class_id"
    filters: tuple[str, ...] = ()
    by: str | None = None


class RetrievalSettings(SpaceSettings):
    """``[retrieval]``: as `SpaceSettings`, and the pool's table, named relative to the data set."""

    table: str | None = None
    row_column: str = "row"
    filters: tuple[str, ...] = ()


class DuplicateSettings(BaseModel):
    """``[duplicates]``: the runs by both finders, and how many candidates are listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    candidates: Annotated[int, Field(ge=1)] = 100


#: Finds the duplicates by both finders, and the candidates, below a folder; returns what the page
#: says of them. It comes from whoever calls: runs are not known here.
FindDuplicates = Callable[[Path, DuplicateSettings], dict[str, Any]]


class PaperSettings(BaseModel):
    """All tables of a configuration; one that is missing is not evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pareto: ParetoSettings | None = None
    components: ComponentSettings | None = None
    zeroshot: ZeroshotSettings | None = None
    retrieval: RetrievalSettings | None = None
    duplicates: DuplicateSettings | None = None


def load_paper(content: Mapping[str, Any], origin: str) -> PaperSettings:
    """Check a configuration.

    Raises
    ------
    SettingsError
        Naming each setting that is unknown or out of range.
    """
    unknown = sorted(set(content) - set(PaperSettings.model_fields))
    if unknown:
        raise SettingsError(
            f"{origin}: unknown table {unknown[0]}; known here: "
            f"{', '.join(PaperSettings.model_fields)}."
        )
    kinds: dict[str, Any] = {
        "pareto": ParetoSettings,
        "components": ComponentSettings,
        "zeroshot": ZeroshotSettings,
        "retrieval": RetrievalSettings,
        "duplicates": DuplicateSettings,
    }
    tables: dict[str, Any] = {
        name: load_table(kinds[name], table, {}, f"{origin}: {name}")
        for name, table in content.items()
    }
    return PaperSettings(**tables)


def measure_paper(
    dataset: Dataset,
    out: Path,
    settings: PaperSettings,
    *,
    space: Dataset | None = None,
    find_duplicates: FindDuplicates | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    execute: Execute = compute_tasks,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make every evaluation of a configuration; computes.

    Parameters
    ----------
    dataset : Dataset
        For the pairs, the components and the Pareto front.
    out : Path
    settings : PaperSettings
    space : Dataset, optional
        A data set with ``text_emb`` for zero-shot classification and retrieval; else those two are
        left out.
    find_duplicates : callable, optional
        Without it, duplicates are left out.
    device : str
        Where networks are trained: ``cpu``, or, experimental, ``cuda`` or ``auto``.
    overwrite : bool
        Begin anew.
    execute : Execute
        For the exhaustive search alone.

    Returns
    -------
    dict
        "rows", and of what was evaluated "components", "pareto", "zeroshot", "retrieval",
        "duplicates"; "left out" names the rest.
    """
    progress = progress or NoProgress()
    keys = {
        "settings": settings.model_dump(mode="json"),
        "models": sorted(
            {
                model_identity(spec)
                for table in (settings.pareto, settings.zeroshot, settings.retrieval)
                if table is not None
                for spec in table.models
            }
        ),
        "input": dataset.fingerprint,
        "space": space.fingerprint if space is not None else None,
    }
    with open_folder(out, "paper", keys, overwrite) as stage:
        stage.prepare()
        result: dict[str, Any] = {"data": dataset.path, "rows": dataset.rows}
        if settings.components is not None:
            result["components"] = _components(
                dataset, out, settings.components.threshold, execute, progress
            )
        if settings.pareto is not None:
            result["pareto"] = measure_pareto(
                dataset, out / "pareto", settings.pareto,
                device=device, truth_execute=execute, progress=progress,
            )  # fmt: skip
        if space is not None:
            result["space"] = space.path
            for name, measure in (("zeroshot", _zeroshot), ("retrieval", _retrieval)):
                table = getattr(settings, name)
                if table is not None:
                    result[name] = _once(
                        out / name / f"{name}.json", measure, space, table, out / "models", device
                    )
        if settings.duplicates is not None and find_duplicates is not None:
            result["duplicates"] = find_duplicates(out, settings.duplicates)
        result["left out"] = [name for name in PaperSettings.model_fields if name not in result]
        if not is_finished(stage):
            finish(stage)
        return result


def _components(
    dataset: Dataset, out: Path, threshold: float, execute: Execute, progress: Progress
) -> dict[str, Any]:
    find_truth(
        dataset, out / "pairs", TruthSettings(None, 0, threshold),
        execute=execute, progress=progress,
    )  # fmt: skip
    found = compare_components(read_edges(out / "pairs").edges, threshold).to_dict()
    write_json(out / "components.json", found)
    return found


def _once(path: AnyPath, measure: Any, *arguments: Any) -> list[dict[str, Any]]:
    """Return what was measured before, or measure and write it as JSON and CSV."""
    found = read_json(path)
    if not isinstance(found, list):
        found = measure(*arguments)
        with write_aside(path.with_suffix(".csv")) as temporary:
            pd.DataFrame(found).to_csv(temporary, index=False)
        write_json(path, found)
    return found


def _zeroshot(
    data: Dataset, table: ZeroshotSettings, models: AnyPath, device: str
) -> list[dict[str, Any]]:
    classes = read_classes(as_path(data.path) / table.classes)
    rows = read_row_labels(
        as_path(data.path) / table.labels,
        row_column=table.row_column,
        label_column=table.label_column,
        filters=table.filters,
        by=table.by,
        rows=data.rows,
        classes=len(classes),
    )
    return measure_zeroshot(data, classes, rows, table, models, device=device)


def _retrieval(
    data: Dataset, table: RetrievalSettings, models: AnyPath, device: str
) -> list[dict[str, Any]]:
    if table.table is None:
        rows = choose_rows(data, table)
    else:
        rows = read_row_ids(
            as_path(data.path) / table.table,
            row_column=table.row_column,
            filters=table.filters,
            rows=data.rows,
        )
    return measure_retrieval(data, rows, table, models, device=device)
