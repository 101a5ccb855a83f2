"""``[keep]``: which copies of a cluster stay, and what they take over from those that do not."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from dask_dedup.paths import refuse_secrets

__all__ = ["KeepSettings", "MergeWay"]

#: How the values of dropped copies come to the row that stays: `dask_dedup.results.merge_columns`.
MergeWay = Literal["distinct", "union", "max", "min", "first", "sum", "any"]


def _text_or_none(value: Any) -> Any:
    return (value.strip() or None) if isinstance(value, str) else value


def _split_pairs(value: Any) -> Any:
    """Turn ``caption=distinct,tags=union`` into a table."""
    if not isinstance(value, str):
        return value
    found: dict[str, str] = {}
    for pair in value.split(",") if value.strip() else ():
        name, equals, way = (word.strip() for word in pair.rpartition("="))
        if not (equals and name and way):
            raise ValueError("expected COLUMN=WAY, such as caption=distinct,tags=union")
        if name in found:
            raise ValueError(f"column {name!r} stands there twice")
        found[name] = way
    return found


def _without_credentials(path: str | None) -> str | None:
    if path is not None:
        refuse_secrets(path)
    return path


_Text = Annotated[str | None, BeforeValidator(_text_or_none)]


class KeepSettings(BaseModel):
    """``[keep]``: which copies of a cluster stay, and what becomes of the others' values."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    order: _Text = None
    """which copies stay rather than others: an ORDER BY over your columns, such as "width*height
    desc, length(caption) desc" (nulls last; of equals the smallest row_id), or first (the smallest
    row_id), or medoid (the highest mean cosine to its cluster) [default: those that most rows are
    similar to]"""

    protect: _Text = None
    """a WHERE over your columns, such as "source = 'gold'": such rows always stay, and others are
    rather dropped for them than for other rows [default: none]"""

    max_per_cluster: Annotated[int, Field(ge=0)] = 0
    """rows of a cluster that stay at most, the first by --keep, protected ones beyond it; others
    are dropped although no row that stays is similar enough, and counted as dropped_by_cap; 0 for
    no limit"""

    merge: Annotated[dict[str, MergeWay], BeforeValidator(_split_pairs)] = {}
    """what the row that stays takes over from copies dropped for it, as COLUMN=WAY,COLUMN=WAY, into
    new columns such as caption_merged: distinct or union (lists), max, min, first (that is not
    null), sum, any [default: nothing]"""

    decisions: Annotated[_Text, AfterValidator(_without_credentials)] = None
    """CSV file of decisions about rows: row_id, or a column of yours such as url, and decision:
    keep, drop or not-duplicates [default: none]"""

    @property
    def is_default(self) -> bool:
        """Whether nothing is asked for."""
        return self == KeepSettings()
