"""The short names of settings: options of the commands, and keywords of `dask_dedup.run`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath
from dask_dedup.settings.run_settings import Settings, load_settings

__all__ = ["OPTIONS", "settings_from"]

#: Keyword, and option with hyphens, to the setting. Every other setting has its dotted name only.
OPTIONS = {
    "threshold": "clusters.threshold",
    "linkage": "clusters.linkage",
    "search_threshold": "join.search_threshold",
    "encoder": "encoder",
    "cells_per_row": "cells.cells_per_row",
    "cells": "cells.cells",
    "dim": "compress.dim",
    "finder": "finder",
    "model": "adc.model",
    "factory": "adc.factory",
    "nprobe": "adc.nprobe",
    "k": "adc.k",
    "tolerance": "adc.tolerance",
    "verify": "adc.verify",
    "recall": "adc.recall",
    "precision": "adc.precision",
    "queries": "adc.queries",
    "modality": "read.modality",
    "metadata": "read.metadata",
    "image_embeddings": "read.image_embeddings",
    "text_embeddings": "read.text_embeddings",
    "embedding_column": "read.embedding_column",
    "url_column": "read.url_column",
    "caption_column": "read.caption_column",
    "columns": "read.columns",
    "drop_columns": "read.drop_columns",
    "skip_bad_parts": "read.skip_bad_parts",
    "report": "report.page",
    "images": "report.images",
    "thumbnails": "report.thumbnails",
    "load_urls": "report.load_urls",
    "audit_queries": "audit.queries",
    "seed": "seed",
    "workers": "compute.workers",
    "threads": "compute.threads",
    "work": "compute.work",
    "memory": "compute.memory",
    "device": "compute.device",
    "cluster": "cluster.kind",
    "dashboard": "cluster.dashboard",
}


def settings_from(
    settings: Settings | Mapping[str, Any] | str | AnyPath | None = None,
    keywords: Mapping[str, Any] | None = None,
) -> Settings:
    """Return settings, whichever way they are given.

    Parameters
    ----------
    settings : Settings, mapping or path, optional
        A mapping has tables, ``{"cells": {"probes": 12}}``, or dotted names,
        ``{"cells.probes": 12}``; a path is that of a TOML file.
    keywords : mapping, optional
        Names of `OPTIONS` to values, which win; None leaves a setting as it is.

    Raises
    ------
    SettingsError
        Naming the keyword or setting that is unknown, or whose value is out of range.

    Examples
    --------
    >>> settings_from({"cells.probes": 12}, {"threshold": 0.9}).clusters.threshold
    0.9
    """
    keywords = keywords or {}
    for name in keywords:
        if name not in OPTIONS:
            raise SettingsError(_unknown(name))
    given = {OPTIONS[name]: value for name, value in keywords.items() if value is not None}
    if settings is None:
        return load_settings(None, given)
    if isinstance(settings, Settings):
        if not given:
            return settings
        return load_settings(None, {**_dotted(settings.model_dump(exclude_unset=True)), **given})
    if isinstance(settings, Mapping):
        return load_settings(None, {**_dotted(settings), **given})
    return load_settings(settings, given)


def _dotted(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted names to values; a value that is a table of its own stays one."""
    found: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, Mapping) and "." not in name:
            found |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            found[name] = value
    return found


def _unknown(name: str) -> str:
    near = get_close_matches(name, OPTIONS, 1)
    if name in OPTIONS.values():
        near = [key for key, setting in OPTIONS.items() if setting == name]
    meant = f" Did you mean {near[0]}?" if near else ""
    return (
        f"unknown keyword {name}.{meant} Known are {', '.join(OPTIONS)}; every other setting goes "
        f'by its dotted name through settings, such as {{"cells.probes": 12}}.'
    )
