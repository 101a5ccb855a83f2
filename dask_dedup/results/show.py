"""The members of clusters: which stays, why, how like it the others are, and what links them.

1. `find_members`: a row id says its file, a cluster id is one; a URL is sought in its column. Then
   the column ``cluster_id`` is read, from the cluster's first file to that of its last member.
2. `with_metadata`: the other columns, of the rows that are asked for.
3. `join_paths`: the forest's edges of these clusters, in one pass, and in them the path from a row
   to the one that stays for it.

Measured on 10⁶ rows in 10 files with 3 * 10⁵ edges, in seconds of one core: the column
``cluster_id`` 0.03 (4.5 bytes a row), the column ``url`` 0.1 (13 bytes a row, of short URLs), the
forest 0.03 (13 bytes an edge). So at 2 * 10⁹ rows one core takes about one minute for the members
of a cluster, three and a half for a URL, one for the paths; the first two are read by up to 16
threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.data.readable_text import readable_table
from dask_dedup.errors import InputError
from dask_dedup.graph.forest_file import forest_path
from dask_dedup.graph.tree_path import edges_inside, edges_joining, hang_tree, path_between
from dask_dedup.paths import AnyPath
from dask_dedup.results.cluster_files import ClusterFiles, text_equals, to_frame
from dask_dedup.results.keep_reasons import KeepReasons
from dask_dedup.schema import FOREST

__all__ = [
    "Asked",
    "find_members",
    "join_paths",
    "nearest_first",
    "path_of_rows",
    "show_rows",
    "with_metadata",
]

_KEYS = ["row_id", "cluster_id", "cluster_size"]
_MOST_CLUSTERS = 5  # shown at once; a URL may be in thousands


class Asked(NamedTuple):
    """What is asked for, one of three: a row, the rows of a URL, or a cluster."""

    row: int | None = None
    url: str | None = None
    cluster: int | None = None

    def check(self) -> None:
        """Raise InputError unless it is one thing."""
        if sum(one is not None for one in self) != 1:
            given = [name for name, one in self._asdict().items() if one is not None]
            raise InputError(
                f"expected one of row, url and cluster, got {', '.join(given) or 'none'}. "
                f"Give one of them."
            )


def find_members(
    files: ClusterFiles, asked: Asked, threshold: float, reasons: KeepReasons | None = None
) -> pd.DataFrame:
    """Return the members of the clusters that are asked for.

    Parameters
    ----------
    files : ClusterFiles
        Of ``OUT/clusters``.
    asked : Asked
    threshold : float
        Cosine of the clusters, for the reasons.
    reasons : KeepReasons, optional
        The rules of the run, where it had any: their columns of all members are read, too.

    Returns
    -------
    DataFrame
        A row for each member: ``row_id``, ``cluster_id``, ``cluster_size`` int64; ``is_asked``
        bool, true of the row, or of the rows with the URL, or of the cluster's first; ``is_kept``
        bool; ``witness_row_id``, the row that stays for it, Arrow's int64, null where it stays
        itself, or none of its cluster does; ``similarity`` float32, to that row, or to the
        cluster's representative where it stays (NaN of an invalid row); ``reason``, why it stays or
        goes. Ordered by cluster, then the representative, the others that stay, those that go; each
        by falling similarity.

    Raises
    ------
    InputError
        There is no such row, URL or cluster.
    DamagedError

    Notes
    -----
    A row id says its file, a cluster id is one. Then one column, ``cluster_id``, is read from the
    cluster's first file on, up to the file of its last member, and of the row groups that hold a
    member, our columns. A URL takes a search of the column ``url`` of all files first.

    Memory: 100 bytes a member, and one row group of one column for each of up to 16 threads.
    """
    asked.check()
    matches = _find_matches(files, asked)
    clusters = dict(zip(matches["cluster_id"].tolist(), matches["cluster_size"], strict=True))
    ids, rows = np.array(sorted(clusters), np.int64), sum(clusters.values())
    members = ids if rows == len(ids) else files.rows_of_clusters(ids, rows)
    found = to_frame(files.take(members, files.own_columns))
    why = np.full(len(found), "", object) if reasons is None else reasons.of_members(found)
    return _judge(found, matches["row_id"], threshold, why)


def _find_matches(files: ClusterFiles, asked: Asked) -> pd.DataFrame:
    """Return ``row_id``, ``cluster_id`` and ``cluster_size`` of what was asked for."""
    if asked.url is not None:
        found = files.find(text_equals(files, "url", asked.url), _KEYS)
        if not len(found):
            raise InputError(f"url {asked.url}: no row has it.")
        return to_frame(found)
    row_id = asked.row if asked.row is not None else asked.cluster
    matches = _keys_of(files, int(row_id or 0), "row" if asked.row is not None else "cluster")
    cluster = int(matches["cluster_id"].iloc[0])
    if asked.row is None and cluster != row_id:
        raise InputError(
            f"cluster {row_id}: there is none; the row of this number is in cluster {cluster}. A "
            f"cluster is named by its smallest row."
        )
    return matches


def _keys_of(files: ClusterFiles, row_id: int, what: str = "row") -> pd.DataFrame:
    if not 0 <= row_id < files.rows:
        raise InputError(f"{what} {row_id}: expected a number from 0 to {files.rows - 1}.")
    return to_frame(files.take(np.array([row_id]), _KEYS))


def _judge(
    found: pd.DataFrame, matches: pd.Series, threshold: float, why: np.ndarray
) -> pd.DataFrame:
    """Say of each member whether it stays, for which row it goes, and why.

    ``why``: what the rules of the run say, "" where they say nothing.
    """
    row_ids, cluster_ids = found["row_id"], found["cluster_id"]
    is_first = found["is_representative"].to_numpy()
    similarity = found["similarity_to_representative"].to_numpy(copy=True)
    if "is_kept" in found:
        is_kept = found["is_kept"].to_numpy()
        witness = found["witness_row_id"].to_numpy(np.int64, na_value=-1)
        similarity[~is_kept] = found["witness_similarity"].to_numpy()[~is_kept]
    else:  # a run that knows representatives only
        is_kept, witness = is_first, cluster_ids.to_numpy()
    is_valid = found["is_valid"].to_numpy()
    is_ruled = is_kept & (why != "")
    reasons = np.select(
        [is_ruled, ~is_valid, found["cluster_size"] == 1, is_first & is_kept, is_kept],
        [
            why,
            "no usable embedding",
            "no other row is like it",
            "represents its cluster",
            f"no row that stays is similar to it by {threshold:g} or more",
        ],
        "",
    ).astype(object)
    gone = np.flatnonzero(~is_kept)
    reasons[gone] = [
        "; ".join(filter(None, [_because(one, other), said]))
        for one, other, said in zip(similarity[gone], witness[gone], why[gone], strict=True)
    ]
    frame = pd.DataFrame(
        {
            "row_id": row_ids,
            "cluster_id": cluster_ids,
            "cluster_size": found["cluster_size"],
            "is_asked": row_ids.isin(matches),
            "is_kept": is_kept,
            "witness_row_id": pd.array(
                pa.array(witness, mask=is_kept | (witness < 0)), pd.ArrowDtype(pa.int64())
            ),
            "similarity": similarity,
            "reason": reasons,
        }
    )
    order = np.lexsort((row_ids, -similarity, ~is_first, ~is_kept, cluster_ids))
    return frame.iloc[order].reset_index(drop=True)


def nearest_first(members: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return at most so many members of each cluster, in their order.

    First those that are asked for, the rows that stay for them, and the rows that go for these.
    """
    ids = members["row_id"].to_numpy()
    stays = members["witness_row_id"].fillna(-1).to_numpy(np.int64, na_value=-1)
    stays = np.where(stays < 0, ids, stays)
    is_near = np.isin(stays, stays[members["is_asked"].to_numpy()])
    order = np.lexsort((np.arange(len(ids)), ~is_near, ~members["is_asked"].to_numpy()))
    return members.iloc[order].groupby("cluster_id").head(limit).sort_index(ignore_index=True)


def _because(similarity: float, witness: int) -> str:
    """Say why a row goes."""
    return f"{similarity:.4f} similar to row {witness}, which stays" if witness >= 0 else ""


def with_metadata(files: ClusterFiles, members: pd.DataFrame) -> pd.DataFrame:
    """Put ``url``, ``caption`` and the user's other columns behind some members.

    Notes
    -----
    Reads all columns of the row groups in which they are. Text that is no UTF-8 is escaped.
    """
    row_ids, back = np.unique(members["row_id"].to_numpy(), return_inverse=True)
    table = files.take(row_ids)
    user = table.select(range(len(files.own_columns), table.num_columns))
    if not user.num_columns:  # of data without metadata
        return members
    theirs = to_frame(readable_table(user))
    return pd.concat([members, theirs.iloc[back].reset_index(drop=True)], axis=1)


def join_paths(
    out: AnyPath, members: pd.DataFrame, rows: int, threshold: float
) -> dict[int, pd.DataFrame]:
    """Return the paths by which rows came to the ones that stay for them.

    Parameters
    ----------
    out : AnyPath
        Of the run.
    members : DataFrame
        From `find_members`: whole clusters, but for those of which no path is wanted; paths are
        found for the rows with ``is_wanted``, or for all that go.
    rows : int
        Of the data set.
    threshold : float
        Lowest similarity that links rows; -1 for a forest of quantized distances.

    Returns
    -------
    dict
        ``row_id`` to its path, as of `dask_dedup.graph.tree_path.path_between`.

    Notes
    -----
    One pass over the forest, ended by the last edge of these clusters, whatever their number.
    """
    ids = np.sort(members["row_id"].to_numpy())
    expected = len(ids) - members["cluster_id"].nunique()
    wanted = ~members["is_kept"] & members["witness_row_id"].notna()
    if "is_wanted" in members:
        wanted &= members["is_wanted"]
    wanted = members[wanted]
    paths: dict[int, pd.DataFrame] = {}
    if not len(wanted):
        return paths
    edges = edges_inside(forest_path(out), rows, ids, threshold, expected)
    for witness, group in wanted.groupby("witness_row_id"):
        tree = hang_tree(edges, int(witness))
        for row_id in group["row_id"].tolist():
            path = tree.path(row_id)
            assert path is not None, f"row {row_id} and row {witness} are in no common tree"
            paths[row_id] = path
    return paths


def path_of_rows(
    out: AnyPath, files: ClusterFiles, row_id: int, other: int, threshold: float
) -> pd.DataFrame | None:
    """Return the path by which two rows came together.

    Parameters
    ----------
    out : AnyPath
    files : ClusterFiles
        Of its clusters.
    row_id, other : int
    threshold : float
        Lowest similarity that links rows, as for `join_paths`.

    Returns
    -------
    DataFrame or None
        As `dask_dedup.graph.tree_path.path_between`. Where the rows are in two clusters that would
        be one at a lower threshold, down to that of the search, its weakest edge is below this
        run's threshold. None: nothing that was searched joins them.

    Notes
    -----
    Of rows in one cluster as costly as `find_members` and `join_paths`. Of others, two passes over
    the forest, and 4 bytes a row of the data set (8 past 2**32 rows).
    """
    one, two = _keys_of(files, row_id), _keys_of(files, other)
    if row_id == other:
        return path_between(FOREST, row_id, other)
    cluster = int(one["cluster_id"].iloc[0])
    edges: pd.DataFrame | None
    if cluster == int(two["cluster_id"].iloc[0]):
        size = int(one["cluster_size"].iloc[0])
        ids = files.rows_of_clusters(np.array([cluster]), size)
        edges = edges_inside(forest_path(out), files.rows, ids, threshold, size - 1)
    else:
        edges = edges_joining(forest_path(out), files.rows, row_id, other)
    return None if edges is None else path_between(edges, row_id, other)


def show_rows(
    out: AnyPath,
    files: ClusterFiles,
    summary: Mapping[str, Any],
    asked: Asked,
    other: int | None = None,
    limit: int = 20,
    reasons: KeepReasons | None = None,
) -> dict[str, Any]:
    """Return what is to be said of a row, a URL or a cluster: for a table, or JSON.

    Parameters
    ----------
    out : AnyPath
    files : ClusterFiles
        Of its clusters.
    summary : mapping
        Of the run.
    asked : Asked
    other : int, optional
        A row to which the path from the first row asked for is wanted.
    limit : int
        Members of each cluster, at most, and the rows asked for beside them, as many again.
    reasons : KeepReasons, optional
        The rules of the run.

    Returns
    -------
    dict
        ``threshold``; ``search_threshold``; ``is_verified``; ``clusters_found``; ``clusters``, at
        most five: ``cluster_id``, ``cluster_size``, ``kept`` (rows that stay) and ``members``: what
        `find_members` says, ``path`` and ``metadata``; ``path``: ``from_row``, ``to_row``,
        ``edges`` (None: nothing that was searched joins the two), or None where none is wanted.
        A path's edges: ``from_row``, ``to_row``, ``similarity``, ``is_weakest``.
    """
    threshold = summary["threshold"]
    is_verified = bool(summary.get("is_verified", True))
    lowest = threshold if is_verified else -1.0
    found = find_members(files, asked, threshold, reasons)
    clusters = found["cluster_id"].unique()
    found = found[found["cluster_id"].isin(clusters[:_MOST_CLUSTERS])]
    is_wanted = found["row_id"].isin(nearest_first(found, limit)["row_id"])
    paths = join_paths(out, found.assign(is_wanted=is_wanted), files.rows, lowest)
    shown = with_metadata(files, found[is_wanted].reset_index(drop=True))
    names = found.columns
    groups = []
    for cluster, members in shown.groupby("cluster_id"):
        whole = found[found["cluster_id"] == cluster]
        listed = [
            {
                **_values(one[names]),
                "path": _edges(paths.get(one["row_id"])),
                "metadata": _values(one.drop(names)),
            }
            for _, one in members.iterrows()
        ]
        groups.append(
            {
                "cluster_id": int(cluster),
                "cluster_size": len(whole),
                "kept": int(whole["is_kept"].sum()),
                "members": listed,
            }
        )
    report = {
        "threshold": threshold,
        "search_threshold": summary["search_threshold"],
        "is_verified": is_verified,
        "clusters_found": len(clusters),
        "clusters": groups,
        "path": None,
    }
    if other is not None:
        row_id = int(found.loc[found["is_asked"], "row_id"].iloc[0])
        path = path_of_rows(out, files, row_id, other, lowest)
        report["path"] = {"from_row": row_id, "to_row": other, "edges": _edges(path)}
    return report


def _edges(path: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    return None if path is None else path.to_dict("records")


def _values(row: pd.Series) -> dict[str, Any]:
    """Return a row of a frame as plain values: None where one is missing."""
    return {
        str(name): None if pd.api.types.is_scalar(value) and pd.isna(value) else value
        for name, value in row.items()
    }
