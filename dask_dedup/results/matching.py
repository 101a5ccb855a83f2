"""Decisions of a run meet the rows of other files by their keys: tasks, and the counts they return.

1. scatter: each part of the clusters, and each file, puts its keys into buckets by their hash.
   Keys that are names in a tar are taken without their folders where the result's have none.
2. present: a bucket says which rows of the result have a counterpart that will stay.
3. A dropped row whose witness has none stays too: it would be the last copy. The decisions are
   scattered again with that.
4. match: a bucket gives each row of the files its verdict, and counts.
5. Each file gathers its verdicts from all buckets, and is written without the dropped rows.

A bucket, or a batch of some rows of a file, is in memory at a time; in 3 a bit for each row of the
data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.data.readable_text import readable
from dask_dedup.paths import AnyPath
from dask_dedup.results.bucket_files import BucketOut, bucket_of, read_bucket
from dask_dedup.results.finished_run import open_table
from dask_dedup.results.kept_rows import kept_columns, needed_columns
from dask_dedup.results.row_keys import KEY, has_folder, key_texts, split_folders
from dask_dedup.results.sizes import SCATTERED_ROWS
from dask_dedup.results.source_files import SourceFile
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import read_arrays, write_arrays, write_aside, write_frame

__all__ = [
    "ALONE",
    "AMBIGUOUS",
    "DROPPED",
    "KEPT",
    "KEYLESS",
    "UNMATCHED",
    "VERDICTS",
    "Counted",
    "DecidedPart",
    "find_present",
    "gather_verdicts",
    "match_bucket",
    "note_present",
    "scatter_decisions",
    "scatter_keys",
]

#: Verdicts on a row: the result has no row of its key, or rows that stay, that are dropped, or
#: both; the row has no key; or only dropped rows, of which one has a witness without counterpart.
VERDICTS = ("unmatched", "kept", "dropped", "ambiguous", "keyless", "without_witness")
UNMATCHED, KEPT, DROPPED, AMBIGUOUS, KEYLESS, ALONE = range(len(VERDICTS))

_DECISIONS = pa.schema(
    [("key", KEY), ("row_id", pa.int64()), ("part", pa.int32()), ("verdict", pa.int8())]
)
_KEYS = pa.schema([("key", KEY), ("folder", KEY), ("file", pa.int32()), ("position", pa.int64())])
_VERDICTS = pa.schema([("position", pa.int64()), ("verdict", pa.int8())])
_PRESENT = pa.schema([("row_id", pa.int64())])


@dataclass(frozen=True)
class Counted:
    """Keys that are counted as img2dataset does: shard and position in it.

    Attributes
    ----------
    first_shard : int
        Of the part.
    samples_per_shard : int
    """

    first_shard: int
    samples_per_shard: int

    def texts(self, rows: int) -> pa.Array:
        """Return the keys of the rows of the part."""
        digits = len(str(self.samples_per_shard - 1)) if self.samples_per_shard > 1 else 0
        shard, index = divmod(np.arange(rows), self.samples_per_shard)
        keys = (self.first_shard + shard) * 10**digits + index
        return pc.utf8_lpad(pa.array(keys).cast(KEY), digits + 5, "0")


@dataclass(frozen=True)
class DecidedPart:
    """One part of the clusters.

    Attributes
    ----------
    number : int
        Position among them.
    path : str
    row_start, row_stop : int
    """

    number: int
    path: str
    row_start: int
    row_stop: int


def scatter_decisions(
    part: DecidedPart,
    key: tuple[str, ...] | Counted,
    buckets: int,
    target: AnyPath,
    present: Sequence[str] = (),
    batch_rows: int = SCATTERED_ROWS,
) -> dict[str, int]:
    """Put the keys and decisions of a part into buckets.

    Parameters
    ----------
    part : DecidedPart
    key : tuple of str, or Counted
        Columns of the clusters.
    buckets : int
    target : AnyPath
        The bucket file.
    present : sequence of str
        Files of `note_present` of all parts: a dropped row whose witness is in none stays.
    batch_rows : int
        Sorted by bucket at a time.

    Returns
    -------
    dict
        ``rows``, ``keyless``, and ``has_folder``, whether a key has a slash: JSON.
    """
    columns = list(key) if isinstance(key, tuple) else []
    with open_table(part.path) as file, damage(part.path):
        names = file.schema_arrow.names
        wanted = ["row_id", *needed_columns(names), *columns]
        wanted = list(dict.fromkeys(wanted))
        table = file.read(None if any("." in name for name in wanted) else wanted)
    kept = kept_columns(table)
    verdicts = np.where(kept.is_kept, KEPT, DROPPED).astype(np.int8)
    if present:
        there = _read_present(present)
        dropped = np.flatnonzero(~kept.is_kept)
        witnesses = kept.witness_row_id.take(pa.array(dropped)).fill_null(-1).to_numpy()
        dropped, witnesses = dropped[witnesses >= 0], witnesses[witnesses >= 0]  # others: decided
        verdicts[dropped[~_bits(there, witnesses)]] = ALONE
    if isinstance(key, Counted):
        keys = key.texts(table.num_rows)
    else:
        keys = key_texts([table[name] for name in columns])
    with (
        write_aside(target) as temporary,
        BucketOut(temporary, _DECISIONS) as out,
    ):
        for start in range(0, len(keys), batch_rows):
            rows = slice(start, start + batch_rows)
            own = keys[rows]
            batch = pa.table(
                {
                    "key": own,
                    "row_id": table["row_id"][rows],
                    "part": pa.array(np.full(len(own), part.number, np.int32)),
                    "verdict": verdicts[rows],
                },
                schema=_DECISIONS,
            )
            _scatter(out, batch, buckets)
    return {"rows": len(keys), "keyless": keys.null_count, "has_folder": has_folder(keys)}


def scatter_keys(
    source: SourceFile,
    number: int,
    buckets: int,
    target: AnyPath,
    is_without_folders: bool = False,
    batch_rows: int = SCATTERED_ROWS,
) -> dict[str, int]:
    """Put the keys of a file into buckets; returns ``rows``, ``keyless``: JSON.

    ``is_without_folders``: what stands before the last slash of a key is noted, and not compared.
    """
    position = keyless = 0
    with write_aside(target) as temporary, BucketOut(temporary, _KEYS) as out:
        for keys in source.keys(batch_rows):
            folders = pa.repeat(pa.scalar("", KEY), len(keys))
            if is_without_folders:
                folders, keys = split_folders(keys)
            positions = np.arange(position, position + len(keys))
            batch = pa.table(
                {
                    "key": keys,
                    "folder": folders,
                    "file": pa.array(np.full(len(keys), number, np.int32)),
                    "position": positions,
                },
                schema=_KEYS,
            )
            _scatter(out, batch, buckets)
            position += len(keys)
            keyless += keys.null_count
    return {"rows": position, "keyless": keyless}


def _scatter(out: BucketOut, batch: pa.Table, buckets: int) -> None:
    there = batch.filter(batch["key"].is_valid())
    if there.num_rows:
        out.write(there, bucket_of(there["key"].combine_chunks(), buckets))


class _Meeting:
    """The decisions and the keys of one bucket, with a number for each distinct key."""

    def __init__(self, bucket: int, decided: Sequence[str], sources: Sequence[str]) -> None:
        self.decisions = read_bucket(decided, bucket)
        self.rows = read_bucket(sources, bucket)
        both = pa.chunked_array(
            [*self.decisions["key"].chunks, *self.rows["key"].chunks], KEY
        ).dictionary_encode()
        both = both.unify_dictionaries().combine_chunks()
        if isinstance(both, pa.ChunkedArray):
            both = both.chunk(0) if both.num_chunks else pa.array([], KEY).dictionary_encode()
        self.keys = both.dictionary
        numbers = both.indices.to_numpy(zero_copy_only=False)
        self.of_decisions, self.of_rows = np.split(numbers, [self.decisions.num_rows])
        count = len(self.keys)
        verdicts = self.decisions["verdict"].to_numpy()
        is_kept = verdicts == KEPT
        self.kept = np.bincount(self.of_decisions[is_kept], minlength=count)
        self.dropped = np.bincount(self.of_decisions[~is_kept], minlength=count)
        self.asked = np.bincount(self.of_rows, minlength=count)
        alone = np.bincount(self.of_decisions[verdicts == ALONE], minlength=count)
        self.verdicts = np.full(count, UNMATCHED, np.int8)
        self.verdicts[self.dropped > 0] = DROPPED
        self.verdicts[alone > 0] = ALONE
        self.verdicts[self.kept > 0] = KEPT
        self.verdicts[(self.kept > 0) & (self.dropped > 0)] = AMBIGUOUS

    def keys_in_folders(self) -> tuple[int, list[str]]:
        """Return how many keys of the result are in several folders, and one of them in two."""
        folders = self.rows["folder"].combine_chunks().dictionary_encode().indices
        number = folders.to_numpy(zero_copy_only=False)
        first = np.full(len(self.keys), -1)
        first[self.of_rows] = number
        differs = (number != first[self.of_rows]) & (self.verdicts[self.of_rows] != UNMATCHED)
        keys = np.unique(self.of_rows[differs])
        if not len(keys):
            return 0, []
        rows = self.rows.filter(pa.array(self.of_rows == keys[0]))
        return len(keys), readable(pc.unique(_whole_keys(rows)).slice(0, 2)).to_pylist()


def _whole_keys(rows: pa.Table) -> pa.ChunkedArray:
    """Return the keys of rows of files as they stand there, with their folders."""
    return pc.binary_join_element_wise(rows["folder"], rows["key"], pa.scalar("", KEY))


def find_present(
    bucket: int,
    decided: Sequence[str],
    sources: Sequence[str],
    target: AnyPath,
    is_ambiguous_kept: bool,
) -> dict[str, int]:
    """Write, by part, which rows of the result have a counterpart in the files that will stay."""
    meeting = _Meeting(bucket, decided, sources)
    stays = meeting.verdicts == KEPT
    if is_ambiguous_kept:
        stays |= meeting.verdicts == AMBIGUOUS
    stays &= meeting.asked > 0
    rows = meeting.decisions.filter(pa.array(stays[meeting.of_decisions]))
    with write_aside(target) as temporary, BucketOut(temporary, _PRESENT) as out:
        if rows.num_rows:
            out.write(rows.select(["row_id"]), rows["part"].to_numpy())
    return {"rows": meeting.decisions.num_rows}


def note_present(part: DecidedPart, found: Sequence[str], target: AnyPath) -> dict[str, int]:
    """Gather from all buckets which rows of a part are present: a bit for each row."""
    there = np.zeros(part.row_stop - part.row_start, np.bool_)
    there[read_bucket(found, part.number)["row_id"].to_numpy() - part.row_start] = True
    write_arrays(target, bits=np.packbits(there), span=np.array([part.row_start, part.row_stop]))
    return {"rows": len(there)}


def _read_present(paths: Sequence[str]) -> list[tuple[int, int, np.ndarray]]:
    found = []
    for path in paths:
        arrays = read_arrays(path)
        start, stop = arrays["span"].tolist()
        found.append((start, stop, arrays["bits"]))
    return found


def _bits(there: list[tuple[int, int, np.ndarray]], row_ids: np.ndarray) -> np.ndarray:
    """Return the bits of some rows."""
    found = np.zeros(len(row_ids), np.bool_)
    order = np.argsort(row_ids, kind="stable")
    ordered = row_ids[order]
    for start, stop, bits in there:
        first, last = np.searchsorted(ordered, [start, stop])
        own = order[first:last]
        offset = row_ids[own] - start
        found[own] = bits[offset >> 3] >> (7 - (offset & 7)).astype(np.uint8) & 1
    return found


def match_bucket(
    bucket: int,
    decided: Sequence[str],
    sources: Sequence[str],
    names: Sequence[str],
    targets: Mapping[str, AnyPath],
) -> dict[str, Any]:
    """Give the rows of one bucket their verdicts.

    Parameters
    ----------
    bucket : int
    decided, sources : sequence of str
        Bucket files of the decisions and of the files' keys.
    names : sequence of str
        Of the files.
    targets : mapping
        Where to write: ``verdicts``, a bucket file with a bucket for each file;
        ``ambiguous``, the keys with both verdicts; ``unmatched_metadata`` and
        ``unmatched_result``, rows of one side only.

    Returns
    -------
    dict
        Counts of rows of the files by verdict, of rows of the result with and without counterpart,
        and of keys; ``in_folders``: keys of the result that are in several folders, and two of them
        as they stand in the files: JSON.
    """
    meeting = _Meeting(bucket, decided, sources)
    verdicts = meeting.verdicts[meeting.of_rows]
    with write_aside(targets["verdicts"]) as temporary, BucketOut(temporary, _VERDICTS) as out:
        if meeting.rows.num_rows:
            own = pa.table(
                {"position": meeting.rows["position"], "verdict": verdicts}, schema=_VERDICTS
            )
            out.write(own, meeting.rows["file"].to_numpy())
    both = np.flatnonzero(meeting.verdicts == AMBIGUOUS)
    ambiguous = pa.table(
        {
            "key": meeting.keys.take(pa.array(both)),
            "kept_rows": meeting.kept[both],
            "dropped_rows": meeting.dropped[both],
            "metadata_rows": meeting.asked[both],
        }
    )
    write_frame(targets["ambiguous"], ambiguous)
    unknown = meeting.rows.filter(pa.array(verdicts == UNMATCHED))
    files = pa.array(list(names)).take(unknown["file"].combine_chunks())
    write_frame(
        targets["unmatched_metadata"],
        pa.table({"file": files, "position": unknown["position"], "key": _whole_keys(unknown)}),
    )
    is_asked = meeting.asked[meeting.of_decisions] > 0
    missing = meeting.decisions.filter(pa.array(~is_asked))
    is_kept = pc.equal(missing["verdict"], KEPT)
    write_frame(
        targets["unmatched_result"],
        pa.table({"row_id": missing["row_id"], "is_kept": is_kept, "key": missing["key"]}),
    )
    counts = np.bincount(verdicts, minlength=len(VERDICTS)).tolist()
    return {
        "rows": len(verdicts),
        "verdicts": counts,
        "result_rows": len(is_asked),
        "unmatched_result_rows": missing.num_rows,
        "repeated_keys": int((meeting.kept + meeting.dropped > 1).sum()),
        "ambiguous_keys": len(both),
        "in_folders": meeting.keys_in_folders(),
    }


def gather_verdicts(number: int, rows: int, paths: Sequence[str]) -> np.ndarray:
    """Return the verdict on each row of a file: int8."""
    verdicts = np.full(rows, KEYLESS, np.int8)
    found = read_bucket(paths, number)
    verdicts[found["position"].to_numpy()] = found["verdict"].to_numpy()
    return verdicts
