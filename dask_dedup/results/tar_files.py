"""Tars of samples, as img2dataset writes them for webdataset: their keys, and fewer of them.

A sample is all files that follow each other with one key: the name with its folders, up to the
first dot behind them, as webdataset has it.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from dask_dedup.errors import InputError, UnreadableError
from dask_dedup.results.row_keys import KEY
from dask_dedup.storage.objects import local_copy, size_of

__all__ = ["SampleTar", "expand_braces"]

_BLOCK = 512
_RECORD = 20 * _BLOCK  # a tar ends at a multiple of this
_COPY_BYTES = 1 << 20
_SAMPLE_BYTES = 20_000  # guessed, where samples are not counted yet
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.[^/]*")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class SampleTar:
    """A tar of samples.

    Attributes
    ----------
    path : str
    """

    path: str

    def about_rows(self) -> int:
        """Return about how many samples it has."""
        return size_of(self.path) // _SAMPLE_BYTES

    def keys(self, rows: int) -> Iterator[pa.Array]:
        """Yield the keys in batches of so many samples, with their folders."""
        batch: list[bytes] = []
        for key, _, _ in self._samples():
            batch.append(key.encode(errors="surrogateescape"))  # as in the tar, UTF-8 or not
            if len(batch) == rows:
                yield pa.array(batch, pa.large_binary()).view(KEY)
                batch = []
        if batch:
            yield pa.array(batch, pa.large_binary()).view(KEY)

    def write(self, is_kept: np.ndarray, target: Path) -> None:
        """Write the tar again with the samples that are kept, byte for byte."""
        done = written = 0
        with open(local_copy(self.path), "rb") as source, open(target, "wb") as out:
            for _, start, stop in self._samples():
                if done < len(is_kept) and is_kept[done]:
                    _copy(source, out, start, stop)
                    written += stop - start
                done += 1
            end = 2 * _BLOCK
            out.write(bytes(end + -(written + end) % _RECORD))
        if done != len(is_kept):
            raise UnreadableError(
                f"{self.path}: {done:,} samples, but it had {len(is_kept):,} when its keys were "
                f"read.",
                self.path,
            )

    def _samples(self) -> Iterator[tuple[str, int, int]]:
        """Yield key, first byte, and byte after the last of each sample, in their order."""
        key, start, stop = "", 0, 0
        try:
            with tarfile.open(local_copy(self.path), "r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                    named = _NAME.fullmatch(member.name)
                    if not member.isfile() or named is None:
                        continue
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    if named[1] != key:
                        if key:
                            yield key, start, stop
                        key, start = named[1], member.offset
                    stop = end
                read_to = tar.offset
            self._check_end(read_to)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UnreadableError(
                f"{self.path}: cannot be read as a tar ({error}).", self.path
            ) from error
        if key:
            yield key, start, stop

    def _check_end(self, position: int) -> None:
        """Raise where anything but zeros follows: Python's reader takes that for the end.

        It is a damaged header, a file that was cut in one, or a tar behind another.
        """
        with open(local_copy(self.path), "rb") as file:
            file.seek(position)
            while content := file.read(_COPY_BYTES):
                if content.strip(b"\0"):
                    raise UnreadableError(
                        f"{self.path}: cannot be read as a tar from byte {position:,} on, where a "
                        f"header is damaged, or a second tar begins: samples would be lost. Take "
                        f"the file away, or write it anew.",
                        self.path,
                    )


def _copy(source: BinaryIO, out: BinaryIO, start: int, stop: int) -> None:
    source.seek(start)
    while start < stop:
        content = source.read(min(_COPY_BYTES, stop - start))
        if not content:
            raise EOFError("it ends in a sample")
        out.write(content)
        start += len(content)


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern with ``{00000..00004}`` or ``{a,b}`` stands for.

    Examples
    --------
    >>> expand_braces("{a,b}/{08..10}.tar")[:4]
    ['a/08.tar', 'a/09.tar', 'a/10.tar', 'b/08.tar']
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    inside = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if inside is None:
        choices = found[1].split(",")
    else:
        first, last = inside.groups()
        if int(first) > int(last):
            raise InputError(f"{pattern}: {found[0]} counts down, and names no file.")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        choices = [f"{i:0{width}d}" for i in range(int(first), int(last) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [before + one + rest for one in choices for rest in expand_braces(after)]
