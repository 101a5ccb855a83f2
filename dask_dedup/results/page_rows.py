"""The second pass over the clusters for the page: the chosen rows' metadata, and what is counted.

URL, caption and the few columns that the page shows are read once, a row group at a time. Kept are
the rows that were asked for; of each chosen cluster a few members; the most frequent sites; and how
many different URLs, captions and sites each chosen cluster has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.data.metadata import take_rows
from dask_dedup.results.approximate_counts import Distinct, NameCounts
from dask_dedup.results.kept_rows import kept_columns, needed_columns
from dask_dedup.results.page_scan import CLUSTER_KEYS, row_groups
from dask_dedup.vectors.sample import hash_rows

__all__ = ["COLUMN", "ClusterContent", "RowScan", "Wanted", "read_wanted", "site_of", "text_of"]

#: Of a placeholder, rows that are as good as the representative of their cluster.
NEAR = 0.98
#: Before the names of the user's other columns, which may be like ours.
COLUMN = "column "
_PURPOSE = 23  # of the members: see `dask_dedup.vectors.sample`
_RANDOM, _UNLIKE = 6, 2  # members of each cluster: at random, and the least similar
_MOST_TEXT = 2000  # characters of a value
# Without a choice between ways through it, a quarter of the time; user and port are few.
_AUTHORITY = r"^(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//(?P<site>[^/?#]*)"
_HOST = r"^(?:.*@)?(?P<site>\[[^\]]*\]|[^:]*)"
_START = r"^(?P<site>[^/?#]{1,60})"


@dataclass(frozen=True)
class Wanted:
    """What is read.

    Attributes
    ----------
    rows, clusters : int64 array
        Rows, and clusters whose members are wanted; sorted.
    columns : tuple of str
        The user's columns beside URL and caption.
    seed : int
    content : int64 array
        Clusters whose contents are counted; sorted.
    """

    rows: np.ndarray
    clusters: np.ndarray
    columns: tuple[str, ...]
    seed: int
    content: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass
class ClusterContent:
    """What the members of one cluster have.

    ``rows``; ``near``, those at `NEAR` or above to the representative; ``kept``.
    """

    rows: int = 0
    near: int = 0
    kept: int = 0
    urls: Distinct = field(default_factory=Distinct)
    captions: Distinct = field(default_factory=Distinct)
    sites: Distinct = field(default_factory=Distinct)

    def merge(self, other: ClusterContent) -> None:
        """Add other members."""
        self.rows += other.rows
        self.near += other.near
        self.kept += other.kept
        for one, two in zip(
            (self.urls, self.captions, self.sites),
            (other.urls, other.captions, other.sites),
            strict=True,
        ):
            one.merge(two)


@dataclass
class RowScan:
    """What has been read so far.

    Attributes
    ----------
    rows : DataFrame or None
        A row each: ``row_id``, ``cluster_id``, ``cluster_size``, ``is_kept``, ``witness_row_id``
        (the row itself where it stays, -1 where none stays for it), ``similarity`` (to the witness;
        of one that stays, to the representative; NaN where invalid), ``url``, ``caption``, and the
        other columns wanted under `COLUMN` and their names: as text, None where missing.
    members : DataFrame or None
        The same of members of the chosen clusters, and ``key``, their hash.
    sites : NameCounts
    content : dict
        Of the clusters to be counted.
    """

    rows: pd.DataFrame | None = None
    members: pd.DataFrame | None = None
    sites: NameCounts = field(default_factory=NameCounts)
    content: dict[int, ClusterContent] = field(default_factory=dict)

    def merge(self, other: RowScan) -> None:
        """Add what was read of other files."""
        self.rows = _joined(self.rows, other.rows)
        members = _joined(self.members, other.members)
        self.members = None if members is None else members.loc[_few_members(members)]
        self.sites.merge(other.sites)
        for cluster, content in other.content.items():
            self.content.setdefault(cluster, ClusterContent()).merge(content)


def read_wanted(paths: Sequence[str], starts: Sequence[int], wanted: Wanted) -> RowScan:
    """Read some files of clusters."""
    scan = RowScan()

    def columns(names: Sequence[str]) -> list[str]:
        own = [*CLUSTER_KEYS, "similarity_to_representative", *needed_columns(names)]
        return list(dict.fromkeys([*own, "url", "caption", *wanted.columns]))

    for path, start in zip(paths, starts, strict=True):
        for table in row_groups(path, start, columns):
            scan.merge(_scan_table(table, wanted))
    return scan


def _scan_table(table: pa.Table, wanted: Wanted) -> RowScan:
    kept = kept_columns(table)
    row_id, cluster_id = (table[name].to_numpy() for name in ("row_id", "cluster_id"))
    own = table["similarity_to_representative"].to_numpy(zero_copy_only=False).astype(np.float32)
    similarity = kept.witness_similarity.to_numpy(zero_copy_only=False).astype(np.float32)
    similarity = np.where(kept.is_kept, own, similarity)
    witness = kept.witness_row_id.fill_null(-1).to_numpy(zero_copy_only=False)
    frame = pd.DataFrame(
        {
            "row_id": row_id,
            "cluster_id": cluster_id,
            "cluster_size": table["cluster_size"].to_numpy(),
            "is_kept": kept.is_kept,
            "witness_row_id": np.where(kept.is_kept, row_id, witness),
            "similarity": similarity,
        }
    )
    urls = text_of(table["url"])
    sites = site_of(urls)
    inside = frame[_is_in(cluster_id, wanted.clusters)]
    members = inside[inside["row_id"] != inside["cluster_id"]]
    hashed = hash_rows(members["row_id"].to_numpy(), wanted.seed, _PURPOSE)
    members = members.assign(key=hashed)
    members = members.loc[_few_members(members)]
    asked = frame[_is_in(row_id, wanted.rows)]
    names = ["url", "caption", *wanted.columns]
    return RowScan(
        _with_texts(asked, table, names),
        _with_texts(members, table, names),
        _count_sites(sites, ~kept.is_kept),
        _content(
            frame[_is_in(cluster_id, wanted.content)], own, urls, text_of(table["caption"]), sites
        ),
    )


def _few_members(members: pd.DataFrame) -> np.ndarray:
    """Return which members of each cluster are kept: labels of the frame's index."""
    by_key = members.sort_values(["cluster_id", "key"]).groupby("cluster_id").head(_RANDOM)
    by_similarity = members.sort_values(["cluster_id", "similarity", "row_id"])
    unlike = by_similarity.groupby("cluster_id").head(_UNLIKE)
    return np.union1d(by_key.index, unlike.index)


def _with_texts(frame: pd.DataFrame, table: pa.Table, names: Sequence[str]) -> pd.DataFrame:
    taken = take_rows(table.select(list(names)), pa.array(frame.index.to_numpy()))
    texts = {
        name if name in ("url", "caption") else f"{COLUMN}{name}": pd.Series(
            [text[:_MOST_TEXT] if text else text for text in text_of(taken[name]).to_pylist()],
            dtype=object,
        )
        for name in names
    }
    return pd.concat([frame.reset_index(drop=True), pd.DataFrame(texts)], axis=1)


def _count_sites(sites: np.ndarray, is_dropped: np.ndarray) -> NameCounts:
    counts = NameCounts()
    codes, names = pd.factorize(sites)
    rows = np.bincount(codes, minlength=len(names))
    dropped = np.bincount(codes, is_dropped, minlength=len(names)).astype(np.int64)
    counts.add(names, rows, dropped)
    return counts


def _content(
    inside: pd.DataFrame, own: np.ndarray, urls: pa.Array, captions: pa.Array, sites: np.ndarray
) -> dict[int, ClusterContent]:
    """Count what the members of the chosen clusters have; the index of ``inside`` are positions."""
    found: dict[int, ClusterContent] = {}
    if not len(inside):
        return found
    positions = inside.index.to_numpy()
    where = pa.array(positions)
    values = (_hashes(urls.take(where)), _hashes(captions.take(where)))
    site_hashes = pd.util.hash_array(sites[positions])
    for cluster, places in inside.reset_index(drop=True).groupby("cluster_id").indices.items():
        content = ClusterContent(
            len(places),
            int((own[positions[places]] >= np.float32(NEAR)).sum()),
            int(inside["is_kept"].to_numpy()[places].sum()),
        )
        for counter, (hashes, is_known) in zip(
            (content.urls, content.captions), values, strict=True
        ):
            counter.add(hashes[places][is_known[places]])
        content.sites.add(site_hashes[places])
        found[int(cluster)] = content
    return found


def _hashes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    is_known = np.asarray(pc.is_valid(texts))
    return pd.util.hash_array(texts.fill_null("").to_numpy(zero_copy_only=False)), is_known


def _is_in(values: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return which values are among a few that are sorted."""
    if not len(some):
        return np.zeros(len(values), np.bool_)
    place = np.searchsorted(some, values).clip(max=len(some) - 1)
    return some[place] == values


def _joined(one: pd.DataFrame | None, other: pd.DataFrame | None) -> pd.DataFrame | None:
    frames = [frame for frame in (one, other) if frame is not None and len(frame)]
    if not frames:
        return other if one is None else one
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def text_of(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of any type as text, null where it is."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_dictionary(kind):
        return text_of(column.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string())
    return pa.array([None if x is None else _word(x) for x in column.to_pylist()], pa.string())


def _word(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def site_of(urls: pa.Array) -> np.ndarray:
    """Return the host that each URL names: an object array of text.

    In lower case, without user and port. Of one without a host, what stands before the first
    slash; empty without a URL.
    """
    found = _extracted(urls, _AUTHORITY)
    has_more = pc.match_substring_regex(found, "[@:]")
    if pc.any(has_more).as_py():
        hosts = _extracted(found.filter(has_more), _HOST)
        found = pc.replace_with_mask(found, has_more, hosts)
    is_none = pc.equal(found, "")
    if pc.any(is_none).as_py():
        starts = _extracted(urls.filter(is_none), _START)
        found = pc.replace_with_mask(found, is_none, starts)
    return pc.utf8_lower(found).to_numpy(zero_copy_only=False)


def _extracted(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.struct_field(pc.extract_regex(texts, pattern), "site").fill_null("")


def describe(contents: Mapping[int, ClusterContent]) -> pd.DataFrame:
    """Return the contents of clusters as a table: a row each, by rising ``cluster_id``."""
    rows = [
        {
            "cluster_id": cluster,
            "rows": one.rows,
            "near": one.near,
            "kept": one.kept,
            "urls": one.urls.count,
            "captions": one.captions.count,
            "sites": one.sites.count,
            "is_exact": one.urls.is_exact and one.captions.is_exact and one.sites.is_exact,
        }
        for cluster, one in sorted(contents.items())
    ]
    names = ("cluster_id", "rows", "near", "kept", "urls", "captions", "sites", "is_exact")
    return pd.DataFrame(rows, columns=list(names))
