"""The rules by which copies stay, checked against the columns of a data set before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dask_dedup.data.metadata import MetadataColumns
from dask_dedup.results.decisions import Decisions, read_decisions
from dask_dedup.results.expressions import Expression, parse_condition, parse_order
from dask_dedup.results.merge_columns import MergeColumn, check_merge
from dask_dedup.settings.keep_settings import KeepSettings

__all__ = ["FIRST", "MEDOID", "KeepRules", "make_rules"]

#: Orders by name.
FIRST, MEDOID = "first", "medoid"


@dataclass(frozen=True)
class KeepRules:
    """What `make_rules` makes of ``[keep]``.

    Attributes
    ----------
    by : str, optional
        ``first``, ``medoid`` or ``order``; None: those copies stay that most rows are near.
    order, protect : Expression, optional
    most : int
        Rows of a cluster that stay; 0 for any number.
    merge : sequence of MergeColumn
    decisions : Decisions, optional
    """

    by: str | None = None
    order: Expression | None = None
    protect: Expression | None = None
    most: int = 0
    merge: Sequence[MergeColumn] = ()
    decisions: Decisions | None = None

    @property
    def are_ranked(self) -> bool:
        """Whether rows need ranks and roles."""
        return bool(self.by or self.protect or self.most or self.decisions)

    @property
    def are_settled(self) -> bool:
        """Whether rows that would stay may have to go."""
        return bool(self.most or (self.decisions is not None and self.decisions.drops))

    @property
    def expressions(self) -> list[Expression]:
        """The expressions there are."""
        return [one for one in (self.order, self.protect) if one is not None]

    @property
    def columns(self) -> list[str]:
        """The columns of the data set that they need."""
        names = [name for one in self.expressions for _, name in one.columns if name != "row_id"]
        return list(dict.fromkeys(names))

    @property
    def digests(self) -> dict[str, str]:
        """What the result depends on beside the settings."""
        return {} if self.decisions is None else {"decisions": self.decisions.digest}

    def without_decisions(self) -> KeepRules:
        """Return the rules as tasks carry them."""
        return replace(self, decisions=None)


def make_rules(settings: KeepSettings, columns: MetadataColumns, rows: int) -> KeepRules:
    """Check what ``[keep]`` says.

    Parameters
    ----------
    settings : KeepSettings
    columns : MetadataColumns
        Of the data set.
    rows : int
        Of the data set.

    Raises
    ------
    SettingsError
        An expression, a column or a line of the decisions is wrong.
    """
    by, order = None, None
    if settings.order is not None:
        by = settings.order.lower() if settings.order.lower() in (FIRST, MEDOID) else "order"
        order = parse_order(settings.order, columns) if by == "order" else None
    return KeepRules(
        by,
        order,
        parse_condition(settings.protect, columns) if settings.protect else None,
        settings.max_per_cluster,
        check_merge(settings.merge, columns),
        None if settings.decisions is None else read_decisions(settings.decisions, columns, rows),
    )
