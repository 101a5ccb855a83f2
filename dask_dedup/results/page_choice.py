"""What the page shows: chosen from the first pass and the forest, read by the second.

1. `choose_rows`: clusters, pairs and paths, and which rows of them are to be read.
2. `dask_dedup.results.page_rows.read_wanted` reads them.
3. `make_tabs`, `find_placeholders`, `list_sites`: what was read becomes what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import cosine_text, count_text
from dask_dedup.report.page_parts import Card, Placeholder, Site, Tab
from dask_dedup.results.cluster_files import ClusterFiles
from dask_dedup.results.page_cards import Tiles, shown_steps
from dask_dedup.results.page_edges import LongPath, edges_near, long_paths
from dask_dedup.results.page_rows import RowScan, describe
from dask_dedup.results.page_scan import ClusterScan

__all__ = ["Chosen", "choose_rows", "find_placeholders", "list_sites", "make_tabs"]

_CLUSTERS, _PAIRS, _UNLIKE, _PATHS = 12, 12, 6, 5  # cards
_NEAR_EDGES = 60  # of which pairs of different clusters are taken
_PATH_ROWS = 200_000  # of the largest cluster that paths are sought in
_PLACEHOLDERS, _SITES = 8, 15
_LEAST = 5  # rows, URLs and captions of a placeholder
_NEAR_SHARE = 0.8  # of its rows are as good as the representative
_OTHERS = 6  # members shown beside the first one
_NONE = pd.DataFrame({"src": [], "dst": [], "similarity": []}, dtype=np.int64)


@dataclass(frozen=True)
class Chosen:
    """What is to be shown.

    Attributes
    ----------
    largest, random : int64 array
        ``cluster_id``.
    content : int64 array
        Clusters that may be placeholders: sorted.
    content_size : int
        Rows of the smallest of them.
    above, below : DataFrame
        FOREST: edges near the threshold.
    unlike : DataFrame
        Rows that are least like the row that stays for them.
    paths : list of LongPath
    ends : DataFrame
        Rows that are least like their representative: beginnings of paths.
    """

    largest: np.ndarray
    random: np.ndarray
    content: np.ndarray
    content_size: int
    above: pd.DataFrame
    below: pd.DataFrame
    unlike: pd.DataFrame
    paths: list[LongPath]
    ends: pd.DataFrame

    @property
    def clusters(self) -> np.ndarray:
        """All clusters whose members are read: sorted."""
        return np.unique(np.concatenate([self.largest, self.random]))

    @property
    def rows(self) -> np.ndarray:
        """All rows that are read by their ids: sorted."""
        found = [self.clusters, self.content]
        for edges in (self.above, self.below):
            found += [edges["src"].to_numpy(), edges["dst"].to_numpy()]
        found += [self.unlike["row_id"].to_numpy(), self.unlike["witness_row_id"].to_numpy()]
        found += [np.array(path_rows(path), np.int64) for path in self.paths]
        return np.unique(np.concatenate(found).astype(np.int64))


def path_rows(path: LongPath) -> list[int]:
    """Return the rows of a path that are shown."""
    nodes = [*path.edges["from_row"].tolist(), path.edges["to_row"].iloc[-1].item()]
    weakest = int(np.flatnonzero(path.edges["is_weakest"])[0])
    return [nodes[place] for place in shown_steps(len(nodes), weakest)]


def choose_rows(
    out: AnyPath, files: ClusterFiles, scan: ClusterScan, summary: Mapping[str, Any]
) -> Chosen:
    """Choose what is shown; reads of the forest what is near the threshold, or on the paths."""
    threshold, is_verified = summary["threshold"], summary.get("is_verified", True)
    above = below = _NONE
    if is_verified:
        above = edges_near(out, files.rows, threshold, _NEAR_EDGES, True)
        below = edges_near(out, files.rows, threshold, _NEAR_EDGES, False)
    ends = scan.unlike_representative
    ends = ends[(ends["cluster_size"] <= _PATH_ROWS) & (ends["similarity"] < np.float32(threshold))]
    ends = ends.head(_PATHS)
    return Chosen(
        scan.largest["cluster_id"].to_numpy()[:_CLUSTERS],
        scan.random["cluster_id"].to_numpy()[:_CLUSTERS],
        np.sort(scan.largest["cluster_id"].to_numpy()),
        int(scan.largest["cluster_size"].min()) if len(scan.largest) else 0,
        above,
        below,
        scan.unlike_witness.head(_UNLIKE),
        long_paths(out, files, ends, threshold) if is_verified else [],
        ends,
    )


def members_of(scan: RowScan, clusters: Sequence[int]) -> dict[int, list[int]]:
    """Return the rows of some clusters that are shown: the least alike, and others at random."""
    members = scan.members
    found: dict[int, list[int]] = {}
    for cluster in clusters:
        own = [int(cluster)]
        if members is not None:
            some = members[members["cluster_id"] == cluster]
            least = some.sort_values(["similarity", "row_id"])["row_id"].tolist()[:1]
            random = some.sort_values("key")["row_id"].tolist()
            kept = some.loc[some["is_kept"], "row_id"].tolist()[:1]
            own += list(dict.fromkeys([*least, *kept, *random]))[:_OTHERS]
        found[int(cluster)] = own
    return found


def make_tabs(tiles: Tiles, chosen: Chosen, scan: RowScan, summary: Mapping[str, Any]) -> list[Tab]:
    """Return the tabs of the gallery."""
    threshold, search = summary["threshold"], summary["search_threshold"]
    nothing = "No row has a duplicate at this threshold."
    quantized = "Similarities of this run are quantized distances, not cosines (--no-verify)."
    is_verified = summary.get("is_verified", True)
    if search < threshold:
        below_absent = f"No pair was found between {search:g} and {threshold:g}."
    else:
        below_absent = (
            f"This run searched from {threshold:g} up, so nothing is known of pairs below. "
            f"A run with --search-threshold {max(round(threshold - 0.05, 4), 0.01):g} finds them, "
            f"with the same clusters."
        )
    return [
        Tab(
            "largest",
            "Largest",
            "The clusters with the most rows.",
            _cluster_cards(tiles, scan, chosen.largest),
            nothing,
        ),
        Tab(
            "random",
            "Random",
            "Clusters of two or more drawn at random, each as likely as any other; pairs first.",
            sorted(_cluster_cards(tiles, scan, chosen.random), key=lambda one: len(one.others) > 1),
            nothing,
        ),
        Tab(
            "above",
            "Just above",
            f"The weakest pairs that were accepted, each of another cluster: at {threshold:g} or "
            f"a little above. If these are not duplicates, the threshold is too low.",
            _pair_cards(tiles, chosen.above, threshold),
            nothing if is_verified else quantized,
        ),
        Tab(
            "below",
            "Just below",
            f"The strongest pairs that were not: a little below {threshold:g}. If these are "
            f"duplicates, the threshold is too high.",
            _pair_cards(tiles, chosen.below, threshold),
            below_absent if is_verified else quantized,
        ),
        Tab(
            "unlike",
            "Least alike",
            "Rows that go and are least like the row that stays for them; then rows that only a "
            "long chain of others links to the first row of their cluster.",
            [*_unlike_cards(tiles, chosen), *_path_cards(tiles, chosen)],
            nothing,
        ),
    ]


def _cluster_cards(tiles: Tiles, scan: RowScan, clusters: np.ndarray) -> list[Card]:
    shown = members_of(scan, clusters.tolist())
    return [tiles.cluster(shown[cluster]) for cluster in clusters.tolist()]


def _pair_cards(tiles: Tiles, edges: pd.DataFrame, threshold: float) -> list[Card]:
    """Return the pairs, no two of the same cluster."""
    cards: list[Card] = []
    seen: set[int] = set()
    for src, dst, similarity in edges[["src", "dst", "similarity"]].itertuples(index=False):
        clusters = {int(tiles.rows[int(one)]["cluster_id"]) for one in (src, dst)}
        if clusters & seen or len(cards) == _PAIRS:
            continue
        seen |= clusters
        sizes = {int(tiles.rows[int(one)]["cluster_size"]) for one in (src, dst)}
        if len(clusters) == 1:
            (one,) = clusters
            title, note = (
                f"Pair at {cosine_text(similarity)}",
                f"in cluster {one}, {count_text(max(sizes), 'row')}",
            )
        else:
            title, note = f"Pair at {cosine_text(similarity)}", "in two clusters"
        cards.append(tiles.pair(int(src), int(dst), float(similarity), title, note))
    return cards


def _unlike_cards(tiles: Tiles, chosen: Chosen) -> list[Card]:
    return [
        tiles.pair(
            int(row.witness_row_id),
            int(row.row_id),
            float(row.similarity),
            f"Goes at {cosine_text(row.similarity)}",
            f"the least of cluster {row.cluster_id}, {row.cluster_size:,} rows",
        )
        for row in chosen.unlike.itertuples()
    ]


def _path_cards(tiles: Tiles, chosen: Chosen) -> list[Card]:
    own = dict(zip(chosen.ends["row_id"].tolist(), chosen.ends["similarity"].tolist(), strict=True))
    return [tiles.path(path, own.get(path.row_id)) for path in chosen.paths]


def find_placeholders(tiles: Tiles, scan: RowScan) -> list[Placeholder]:
    """Return the large clusters that are one picture under many URLs and captions.

    Those with at least five rows, URLs and captions whose rows are nearly all at 0.98 or above to
    the representative; most rows first.
    """
    table = describe(scan.content)
    likely = table[
        (table[["rows", "urls", "captions"]].min(axis=1) >= _LEAST)
        & (table["near"] >= _NEAR_SHARE * table["rows"])
    ]
    order = np.lexsort([likely["cluster_id"], -likely["captions"], -likely["rows"]])
    return [
        Placeholder(
            tiles.tile(int(one.cluster_id)),
            int(one.cluster_id),
            int(one.rows),
            int(one.urls),
            int(one.captions),
            int(one.sites),
            bool(one.is_exact),
        )
        for one in likely.iloc[order[:_PLACEHOLDERS]].itertuples()
    ]


def list_sites(scan: RowScan) -> list[Site]:
    """Return the sites with the most dropped rows."""
    return [
        Site(str(one.name), int(one.rows), int(one.dropped))
        for one in scan.sites.top(_SITES)[["name", "rows", "dropped"]].itertuples(index=False)
    ]
