"""The stages of a run, declared once: what status, plan, progress and resume read.

A stage is done again when a setting that it depends on has changed: one of its own ``keys``, or of
a stage that writes what it reads. The test of this module changes every setting and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

from dask_dedup.graph.forest_range import looks_inside_groups
from dask_dedup.settings.run_settings import ClusterSettings, ReadSettings, Settings
from dask_dedup.storage.stage import TRAINED

__all__ = [
    "CALIBRATED",
    "CARRY",
    "CLUSTERS",
    "COMPARE",
    "DECIDE",
    "DERIVED",
    "FIT",
    "FOREST",
    "GROUPS",
    "JOIN",
    "KEPT",
    "LABELS",
    "LAYOUT",
    "MERGES",
    "PACK",
    "PLACE",
    "PLAN",
    "RANK",
    "REPORT",
    "SEARCH",
    "SETTLE",
    "SHARDS",
    "STAGES",
    "TOLERANCE",
    "TRAIN",
    "VALUES",
    "WITNESSES",
    "WORKING",
    "DeclaredStage",
    "Derived",
    "keys_of",
    "settings_of",
    "stages_of",
    "values_of",
]

#: Among the working files: what the run was expected to cost; the parts that a kept forest is of;
#: the tolerance of the finder adc.
PLAN, KEPT, CALIBRATED = "plan.json", "kept", "calibrated.json"


@dataclass(frozen=True)
class DeclaredStage:
    """One stage.

    Attributes
    ----------
    name : str
        As progress, status and summary show it.
    folder : str
        Of its files, under OUT/stages. Stages of one folder are done again together.
    reads, writes : tuple of str
        What it is made of and what it makes, in words; "data" and "metadata" are the input.
    keys : tuple of str
        Settings that it depends on by itself: dotted, or names of `DERIVED`.
    finder : str, optional
        That it belongs to; None: to every one.
    note : str, optional
        File in the folder that ends the stage, where another stage writes into the folder, too.
    is_optional : bool
        Whether only some runs have it.
    is_shown : bool
        If not, its time is that of the next stage.
    """

    name: str
    folder: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    keys: tuple[str, ...] = ()
    finder: str | None = None
    note: str | None = None
    is_optional: bool = False
    is_shown: bool = True


class Derived(NamedTuple):
    """What stages depend on of several settings together: those settings, and the value."""

    settings: tuple[str, ...]
    value: Callable[[Settings], Any]


def _search_threshold(settings: Settings) -> float:
    return settings.search_threshold


def _dense_groups(settings: Settings) -> bool:
    # Their inner pairs are not compared, so a threshold that high has none of them.
    return not looks_inside_groups(settings.clusters.threshold)


def _calibration_queries(settings: Settings) -> int:
    return settings.adc.queries if settings.adc.tolerance is None else 0


def _calibrated_to(settings: Settings) -> dict[str, float]:
    adc = settings.adc
    if adc.tolerance is not None:
        return {"tolerance": adc.tolerance}
    return {"recall": adc.recall} if adc.verify else {"precision": adc.precision}


def _ranks(settings: Settings) -> dict[str, Any] | None:
    keep = settings.keep
    if not (keep.order or keep.protect or keep.max_per_cluster):
        return None
    uses_columns = keep.protect is not None or keep.order not in (None, "first", "medoid")
    read = {name: getattr(settings.read, name) for name in _METADATA} if uses_columns else {}
    return {"order": keep.order, "protect": keep.protect, **read}


_METADATA = tuple(name for name in ReadSettings.model_fields if name != "skip_bad_parts")
_READ = tuple(f"read.{name}" for name in _METADATA)

DERIVED = {
    "search_threshold": Derived(("join.search_threshold", "clusters.threshold"), _search_threshold),
    "dense_groups": Derived(("clusters.threshold",), _dense_groups),
    "calibration_queries": Derived(("adc.queries", "adc.tolerance"), _calibration_queries),
    "calibrated_to": Derived(
        ("adc.tolerance", "adc.verify", "adc.recall", "adc.precision"), _calibrated_to
    ),
    "ranks": Derived(("keep.order", "keep.protect", "keep.max_per_cluster", *_READ), _ranks),
}

#: Where decisions name rows by a column of the metadata.
DECIDE = DeclaredStage("decide", "decided", ("metadata",), ("decisions",), _READ, is_optional=True)

PACK = DeclaredStage(
    "pack", "embeddings", ("data",), ("rows",), ("read.embedding_column",), is_optional=True
)

_MODELS = (
    "seed",
    "read.modality",
    "projection.dim",
    "projection.sample_rows",
    "cells.cells_per_row",
    "cells.cells",
    "cells.probes",
    "cells.sample_per_cell",
    "audit.queries",
    "search_threshold",  # of the audit's true pairs
    "dense_groups",
)
FIT = DeclaredStage("fit", "layout", ("rows",), ("models",), _MODELS, "join", note=TRAINED)
LAYOUT = DeclaredStage(
    "layout", "layout", ("rows", "models"), ("entries", "invalid rows", "true pairs"), (), "join"
)
#: One for each level of merges: 64 files and fewer need none, 2 * 10^9 rows in parts of 10^6 one.
MERGES = tuple(
    DeclaredStage(name, name, ("entries",), ("merged entries",), (), "join", is_optional=True)
    for name in ("merge", "merge-2", "merge-3")
)
JOIN = DeclaredStage("join", "join", ("rows", "entries", "merged entries"), ("edges",), (), "join")

_INDEX = (
    "seed",
    "read.modality",
    "adc.factory",
    "adc.model",
    "adc.sample_rows",
    "adc.iterations",
    "audit.queries",
    "calibration_queries",
    "search_threshold",
)
TRAIN = DeclaredStage(
    "train", "shards", ("rows",), ("base index", "samples"), _INDEX, "adc", note=TRAINED
)
SHARDS = DeclaredStage(
    "shards",
    "shards",
    ("rows", "base index", "samples"),
    ("indexes", "invalid rows", "true pairs"),
    (),
    "adc",
)
_RULE = ("adc.k", "adc.nprobe", "adc.verify", "calibrated_to")
TOLERANCE = DeclaredStage(
    "tolerance",
    "search",
    ("indexes", "samples", "true pairs"),
    ("rule",),
    _RULE,
    "adc",
    note=CALIBRATED,
    is_optional=True,
)
SEARCH = DeclaredStage("search", "search", ("rows", "indexes", "rule"), ("edges",), (), "adc")

FOREST = DeclaredStage("forest", "forests", ("edges",), ("forest",))
LABELS = DeclaredStage(
    "labels",
    "labels",
    ("forest", "invalid rows", "true pairs"),
    ("labels", "audit"),
    tuple(f"clusters.{name}" for name in ClusterSettings.model_fields if name != "linkage"),
    is_shown=False,
)
#: These two only where ``[keep]`` or decisions want some copies rather than others.
VALUES = DeclaredStage(
    "values",
    "values",
    ("labels", "metadata"),
    ("values",),
    ("ranks",),
    is_optional=True,
    is_shown=False,
)
RANK = DeclaredStage(
    "rank", "ranks", ("values", "rows"), ("ranks",), (), is_optional=True, is_shown=False
)
COMPARE = DeclaredStage(
    "compare", "compared", ("labels", "ranks", "rows"), ("similarities",), (), is_shown=False
)
#: Not where a representative stands for all of its cluster, or where no row is unlike it.
GROUPS = DeclaredStage(
    "groups",
    "groups",
    ("similarities", "forest"),
    ("groups",),
    ("clusters.linkage",),
    is_optional=True,
    is_shown=False,
)
WITNESSES = DeclaredStage("witnesses", "witnesses", ("groups", "rows"), ("witnesses",))
#: These two only where a row that would stay may have to go.
PLACE = DeclaredStage(
    "place",
    "placed",
    ("similarities", "witnesses"),
    ("placed rows",),
    (),
    is_optional=True,
    is_shown=False,
)
SETTLE = DeclaredStage(
    "settle",
    "settled",
    ("placed rows", "rows"),
    ("settled rows",),
    ("keep.max_per_cluster",),
    is_optional=True,
    is_shown=False,
)
#: Only where columns are merged.
CARRY = DeclaredStage(
    "carry",
    "carried",
    ("similarities", "witnesses", "settled rows", "metadata"),
    ("carried values",),
    ("keep.merge", *_READ),
    is_optional=True,
    is_shown=False,
)
CLUSTERS = DeclaredStage(
    "clusters",
    "clusters",
    (
        "similarities",
        "witnesses",
        "settled rows",
        "carried values",
        "invalid rows",
        "metadata",
    ),
    ("clusters",),
    _READ,
)

#: The page; not of those below, as it has no working files and is no condition of a result.
REPORT = DeclaredStage("report", "report", ("clusters", "forest"), ("page",))

#: All stages, in the order in which a run does them.
STAGES = (
    DECIDE,
    PACK,
    FIT,
    LAYOUT,
    *MERGES,
    JOIN,
    TRAIN,
    SHARDS,
    TOLERANCE,
    SEARCH,
    FOREST,
    LABELS,
    VALUES,
    RANK,
    COMPARE,
    GROUPS,
    WITNESSES,
    PLACE,
    SETTLE,
    CARRY,
    CLUSTERS,
)
#: What runs write under OUT/stages.
WORKING = frozenset({*(stage.folder for stage in STAGES), KEPT, PLAN})


def stages_of(finder: str) -> tuple[DeclaredStage, ...]:
    """Return the stages of a run with a finder, in their order."""
    return tuple(stage for stage in STAGES if stage.finder in (None, finder))


def keys_of(stage: DeclaredStage, finder: str) -> tuple[str, ...]:
    """Return all keys that a stage depends on: its own, and those of what it reads."""
    known: dict[str, tuple[str, ...]] = {}  # of each thing that has been written so far
    found: dict[str, tuple[str, ...]] = {}
    for one in stages_of(finder):
        keys = sum((known.get(thing, ()) for thing in one.reads), ()) + one.keys
        found[one.folder] = found.get(one.folder, ()) + keys
        known |= dict.fromkeys(one.writes, found[one.folder])
    return tuple(dict.fromkeys(found[stage.folder]))


def settings_of(stage: DeclaredStage, finder: str) -> frozenset[str]:
    """Return the dotted names of all settings that a stage depends on."""
    keys = keys_of(stage, finder)
    return frozenset(
        name for key in keys for name in (DERIVED[key].settings if key in DERIVED else (key,))
    )


def values_of(stage: DeclaredStage, settings: Settings) -> dict[str, Any]:
    """Return what a stage depends on, by its keys: another value, another digest."""
    return {key: _value_of(key, settings) for key in keys_of(stage, settings.finder)}


def _value_of(key: str, settings: Settings) -> Any:
    if key in DERIVED:
        return DERIVED[key].value(settings)
    return reduce(getattr, key.split("."), settings)
