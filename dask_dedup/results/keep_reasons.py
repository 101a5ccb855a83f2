"""Why a row of a finished run stays or goes, in words: its rules are applied to it again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.data.metadata import MetadataColumns
from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath
from dask_dedup.results.cluster_files import ClusterFiles
from dask_dedup.results.decisions import Decisions, match_keys
from dask_dedup.results.expressions import evaluate
from dask_dedup.results.keep_rules import FIRST, MEDOID, KeepRules, make_rules
from dask_dedup.results.order import rank_members
from dask_dedup.results.roles import NOT_DUPLICATE, ORDINARY, PROTECTED, UNWANTED
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.objects import exists
from dask_dedup.storage.run_folder import DECISIONS_FILE

__all__ = ["KeepReasons", "open_reasons"]

_BY_DECISION = {
    PROTECTED: "kept by decision",
    UNWANTED: "dropped by decision",
    NOT_DUPLICATE: "no duplicate of its cluster, by decision",
}


class KeepReasons:
    """The rules of a finished run.

    Parameters
    ----------
    files : ClusterFiles
        Of its clusters.
    settings : Settings
    rules : KeepRules
    """

    def __init__(self, files: ClusterFiles, settings: Settings, rules: KeepRules) -> None:
        self._files, self._keep, self._rules = files, settings.keep, rules
        self._threshold = settings.clusters.threshold

    def of_members(self, found: pd.DataFrame) -> np.ndarray:
        """Return why rows stay, or what is to be said of rows that go, in words; else "".

        Parameters
        ----------
        found : DataFrame
            All members of some clusters, by ``row_id``: our columns.

        Returns
        -------
        object array of str
        """
        row_ids, clusters = found["row_id"].to_numpy(), found["cluster_id"].to_numpy()
        try:
            protected, decided, keys = self._evaluate(row_ids)
        except SettingsError:  # of a value that could be computed when the run was made
            return np.full(len(found), "", object)
        roles = np.where(decided >= 0, decided, np.where(protected, PROTECTED, ORDINARY))
        words = np.full(len(found), "", object)
        if self._rules.by not in (None, MEDOID):
            ranked = rank_members(clusters, row_ids, roles.astype(np.uint8), keys)
            place = ranked.set_index("row_id")["first_row_id"].loc[row_ids].to_numpy()
            words[place == row_ids] = self._first
        elif self._rules.by == MEDOID:
            words[found["is_kept"].to_numpy() & (found["cluster_size"] > 1).to_numpy()] = (
                f"the medoid of its cluster, or no row that stays is similar to it by "
                f"{self._threshold:g} or more"
            )
        similarity = found["witness_similarity"].to_numpy()
        is_far = ~found["is_kept"].to_numpy() & ~(similarity >= np.float32(self._threshold))
        if self._keep.max_per_cluster:
            words[is_far] = f"more than {self._keep.max_per_cluster} rows of its cluster would stay"
        words[protected] = f"protected: {self._keep.protect}"
        for role, text in _BY_DECISION.items():
            words[decided == role] = text
        return words

    @property
    def _first(self) -> str:
        if self._rules.by == FIRST:
            return "the smallest row_id of its cluster"
        return f"the first of its cluster by {self._keep.order}"

    def _evaluate(
        self, row_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, pa.ChunkedArray | None]:
        """Return which rows are protected, the roles of decided ones (-1: none), and sort keys."""
        rules = self._rules
        protected, decided = np.zeros(len(row_ids), np.bool_), np.full(len(row_ids), -1)
        keys = None
        names = list(rules.columns)
        decisions = rules.decisions
        if decisions is not None and not decisions.is_by_row:
            names.append(decisions.key)
        table = pa.table({"row_id": row_ids})
        if names:
            taken = self._files.take(row_ids, list(dict.fromkeys(names)))
            for name in taken.column_names:
                table = table.append_column(name, taken[name])
        if rules.protect is not None:
            protected = evaluate(rules.protect, table).to_numpy()
        if rules.order is not None:
            keys = evaluate(rules.order, table)
        if decisions is not None:
            own = _decided(decisions, table)
            place = pd.Index(row_ids).get_indexer(own["row_id"])
            decided[place[place >= 0]] = own["role"].to_numpy()[place >= 0]
        return protected & (decided < 0), decided, keys


def _decided(decisions: Decisions, table: pa.Table) -> pd.DataFrame:
    if decisions.is_by_row:
        return decisions.of_rows()
    found = match_keys(decisions.by_key(), table[decisions.key], 0)
    return found.assign(row_id=table["row_id"].to_numpy()[found["row_id"]])


def open_reasons(out: AnyPath, files: ClusterFiles, settings: Settings) -> KeepReasons | None:
    """Return the rules of a finished run; None where it has none, or they cannot be read again."""
    keep = settings.keep
    if keep.is_default:
        return None
    schema = pa.schema([field for field in files.schema if field.name not in files.own_columns])
    spellings = {
        "url": ("url", "URL", settings.read.url_column),
        "caption": ("caption", "TEXT", settings.read.caption_column),
    }
    sources = tuple(
        tuple(filter(None, spellings.get(name, (name.removeprefix("source_"), name))))
        for name in schema.names
    )
    stored = out / DECISIONS_FILE
    given = str(stored) if keep.decisions is not None and exists(stored) else None
    keep = keep.model_copy(update={"decisions": given, "merge": {}})
    try:
        rules = make_rules(keep, MetadataColumns(schema, sources), files.rows)
    except SettingsError:
        return None
    return KeepReasons(files, settings, rules)
