"""Forest and labels in files, for edges that do not fit into a worker's memory together.

What `dask_dedup.run` does between the search and the clusters, for a caller who has edges:

1. `write_forest`: each partition of edges becomes a forest file; these are merged to one, in a tree
   or streamed through an array over all rows (`dask_dedup.graph.choice` chooses).
2. `write_labels`: one task labels the forest, densely or sparsely, and writes a file per range of
   rows, so that nothing else needs all labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pandas as pd
from dask.delayed import Delayed, delayed

from dask_dedup.errors import OutputError
from dask_dedup.graph.choice import choose_merge
from dask_dedup.graph.components import merge_tree, read_forest
from dask_dedup.graph.forest import forest_of_edges
from dask_dedup.graph.forest_file import check_answers, forest_path, read_origin
from dask_dedup.graph.forest_range import range_of
from dask_dedup.graph.labels import DenseLabels, SparseLabels, label_densely, label_sparsely
from dask_dedup.graph.origin import cut_rows, origin_of, with_origin
from dask_dedup.graph.stream import count_edges, stream_merge
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.runtime.executor import Execute, compute_tasks, ignore_result
from dask_dedup.runtime.limits import cpu_count, memory_limit
from dask_dedup.schema import LABELS
from dask_dedup.storage.files import read_frame, write_frame
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import remove_tree

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["How", "choose_how", "write_forest", "write_labels"]

How = Literal["auto", "tree", "stream"]

_MEMORY_SHARE = 0.75  # of what this process may use, as `dask_dedup.runtime.shares` takes it


def write_forest(
    edges: dd.DataFrame,
    out: str | AnyPath,
    *,
    how: How = "auto",
    memory_bytes: int | None = None,
    execute: Execute = compute_tasks,
) -> dd.DataFrame:
    """Write the maximum spanning forest of all edges to a file; computes.

    What `dask_dedup.spanning_forest` returns, bit by bit, however it is merged.

    Parameters
    ----------
    edges : dask DataFrame
        EDGES, from `dask_dedup.join_cells` or your own. Each partition is computed once, in a task
        that contracts and writes it.
    out : path or URL
        A new or empty folder, which all workers see. It will hold
        ``forest/part-00000.parquet``; the files of the partitions are removed in the end.
    how : str
        ``tree`` merges in memory, eight forests at a time; ``stream`` merges in one task, band by
        band, through an array over all rows; ``auto`` takes what fits and is quicker.
    memory_bytes : int, optional
        What a worker has, for ``auto``. By default this process's share of the machine: three
        quarters of the memory, divided by the number of cores.
    execute : callable, optional
        How tasks are computed; by default on Dask's current scheduler.

    Returns
    -------
    dask DataFrame
        FOREST, as `dask_dedup.read_forest` reads it from ``out``.

    Raises
    ------
    OutputError
        The folder has something in it.
    CapacityError
        Neither way fits into ``memory_bytes``.

    Notes
    -----
    At 2 * 10^9 rows, ``stream`` takes one task of 8 GB and a band of 1.6 GB, and 20 bytes of disk
    per edge of the partitions, before compression; ``tree`` 120 bytes per forest row. Nothing is
    resumed: an interrupted call begins anew, search included. `dask_dedup.run` resumes.
    """
    folder = _new_folder(out)
    pieces = folder / "partitions"
    paths = [pieces / f"forest-{i:05d}.parquet" for i in range(edges.npartitions)]
    try:
        write = delayed(_write_piece)
        tasks = [write(one, path) for one, path in zip(edges.to_delayed(), paths, strict=True)]
        counts = execute(tasks, ignore_result)
        origin, known = origin_of(edges._meta), range_of(edges._meta)
        rows = origin.rows if origin else max((rows for _, rows in counts), default=0)
        notes = {**(known.notes() if known else {}), **(origin.notes() if origin else {})}
        if how == "auto":
            how = choose_how(sum(number for number, _ in counts), rows, memory_bytes)
        target = forest_path(folder)
        if how == "stream":
            merge: Delayed = delayed(stream_merge)(paths, rows, target, notes)
        else:
            tree = merge_tree([delayed(read_frame)(path) for path in paths])
            merge = delayed(_write_merged)(tree, target, notes)
        execute([merge], ignore_result)
    finally:
        remove_tree(pieces)
    return read_forest(folder)


def write_labels(
    out: str | AnyPath,
    threshold: float,
    folder: str | AnyPath,
    *,
    how: How = "auto",
    memory_bytes: int | None = None,
    execute: Execute = compute_tasks,
) -> dd.DataFrame:
    """Label the components of a written forest's edges at or above a threshold; computes.

    What `dask_dedup.label_components` returns, in files.

    Parameters
    ----------
    out : path or URL
        Where `dask_dedup.write_forest` wrote, or OUT of a finished run.
    threshold : float
        Cosine; compared as float32, "at least".
    folder : path or URL
        A new or empty folder for the labels, which all workers see: a file per 1,048,576 rows.
    how : str
        ``stream`` reads the edges piece by piece into an array over all rows; ``tree`` holds the
        forest, and takes less where few rows have a duplicate; ``auto`` chooses as
        `dask_dedup.write_forest` does.
    memory_bytes, execute
        As of `dask_dedup.write_forest`.

    Returns
    -------
    dask DataFrame
        LABELS, indexed by ``row_id``, sorted: lazy, one partition per file, known divisions.

    Raises
    ------
    SettingsError
        The forest does not answer this threshold, or holds quantized distances.
    DamagedError
        There is no forest, or it is not what was written.
    OutputError
        The folder has something in it.
    CapacityError
        Neither way fits into ``memory_bytes``.

    Notes
    -----
    At 2 * 10^9 rows, ``stream`` takes one task of 16 GB (8 bytes a row); ``tree`` some 100 bytes
    per row that has a duplicate. The files hold 24 bytes per such row, before compression.
    """
    import dask.dataframe as dd

    path = forest_path(out)
    check_answers(path, threshold)
    target = _new_folder(folder)
    origin = read_origin(path)
    edges, rows = count_edges(path)
    rows = origin.rows if origin else rows
    if how == "auto":
        how = choose_how(edges, rows, memory_bytes)
    cuts = cut_rows(rows)
    paths = [target / f"labels-{i:05d}.parquet" for i in range(len(cuts))]
    execute([delayed(_label)(path, rows, threshold, how, cuts, paths)], ignore_result)
    return dd.from_map(
        _read_labels,
        [str(one) for one in paths],
        meta=with_origin(LABELS, origin),
        divisions=(*(start for start, _ in cuts), cuts[-1][1] - 1),
        label="read-labels",
    )


def choose_how(edges: int, rows: int, memory_bytes: int | None = None) -> How:
    """Return how a forest of so many edges over so many rows is merged or labelled.

    ``memory_bytes``: what there is; by default this process's share of the machine.
    """
    memory = memory_bytes or int(memory_limit() * _MEMORY_SHARE / cpu_count())
    return "stream" if choose_merge(edges, rows, memory) == "stream" else "tree"


def _new_folder(name: str | AnyPath) -> AnyPath:
    folder = as_path(name)
    if names_in(folder):
        raise OutputError(
            f"{folder}: is not empty, and what is in it would be mixed with what is written. Name "
            f"a new folder."
        )
    return folder


def _write_piece(edges: pd.DataFrame, path: AnyPath) -> tuple[int, int]:
    """Contract and write one partition; return its edges, and the rows that it reaches into."""
    forest = forest_of_edges(edges)
    write_frame(path, forest)
    return len(forest), int(forest["dst"].max()) + 1 if len(forest) else 0


def _write_merged(forest: pd.DataFrame, path: AnyPath, notes: dict[str, str]) -> None:
    """Write what a tree of merges has come to."""
    write_frame(path, forest, notes, durable=True)


def _label(
    path: AnyPath,
    rows: int,
    threshold: float,
    how: How,
    cuts: Sequence[tuple[int, int]],
    targets: Sequence[AnyPath],
) -> None:
    """Label a forest and write the labels of each range of rows."""
    labels: DenseLabels | SparseLabels
    if how == "stream":
        labels = label_densely(path, rows, threshold)
    else:
        labels = label_sparsely(path, threshold)
    for (start, stop), target in zip(cuts, targets, strict=True):
        write_frame(target, labels.between(start, stop).reset_index())


def _read_labels(path: str) -> pd.DataFrame:
    return read_frame(as_path(path)).set_index("row_id")
