"""Names of files that are paired by order: which confirm it, contradict it, or say nothing."""

from __future__ import annotations

import hashlib
import uuid
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dask_dedup.data.pairing import check_pairs, missing_numbers
from dask_dedup.errors import InputError


def npy(numbers, pattern="/my 7 sets/img_emb/img_emb_{}.npy"):
    return [pattern.format(n) for n in numbers]


def meta(numbers, pattern="/my 7 sets/metadata/metadata_{}.parquet"):
    return [pattern.format(n) for n in numbers]


def spark(numbers, pattern="/sets/meta/part-{:05d}-{}.c000.snappy.parquet"):
    return [pattern.format(n, uuid.UUID(int=n * 7**40 % 2**128)) for n in numbers]


def spark_tasks(numbers):
    """As Databricks writes: the number of the part, and that of the task, in another order."""
    tid = "/m/part-{:05d}-tid-7523912-{}-{}-1-c000.snappy.parquet"
    return [tid.format(n, uuid.UUID(int=n * 7**40 % 2**128), 90 - n) for n in numbers]


HASHES = [hashlib.sha1(bytes([i])).hexdigest() for i in range(30)]
DAYS = [(1, 0), (1, 1), (2, 0)]

CONFIRMED = {
    "the same numbers": (npy(range(12)), meta(range(12))),
    "with gaps in both": (npy([0, 3, 11]), meta([0, 3, 11])),
    "other padding": (npy(range(12)), meta([f"{n:05d}" for n in range(12)])),
    "numbers that are the same in all names": (
        npy(range(3), "/e/clip_vit_l14_336_{:04d}.npy"),
        meta(range(3), "/m/v2/metadata_{}.parquet"),
    ),
    "Spark's": (npy(range(30)), spark(range(30))),
    "Spark's with tasks": (npy(range(5)), spark_tasks(range(5))),
    "of a hub": (
        npy(range(4), "/e/train-{:05d}-of-00004.npy"),
        [f"/m/train-{n:05d}-of-00004-{HASHES[n][:16]}.parquet" for n in range(4)],
    ),
    "days and numbers": (
        [f"/d/2023-01-0{day}/emb_{n}.npy" for day, n in DAYS],
        [f"/d/2023-01-0{day}/meta_{n}.parquet" for day, n in DAYS],
    ),
    "the first without a number": (
        ["/e/img_emb.npy", "/e/img_emb_1.npy"],
        ["/m/meta.parquet", "/m/meta_1.parquet"],
    ),
    "words": (npy(["cat", "dog"]), meta(["cat", "dog"])),
    "words and numbers that repeat": (
        npy(["cat_0", "cat_1", "dog_0"]),
        meta(["cat_0", "cat_1", "dog_0"]),
    ),
    "hashes": (npy(HASHES), meta(HASHES)),
    "a word of hexadecimal letters": (
        npy(range(3), "/e/face{:04d}.npy"),
        meta(range(3), "/m/cafe{:05d}.parquet"),
    ),
    "one file": (npy([3]), meta([3])),
    "one file, one number": (npy(["all"], "/e/{}.npy"), meta([3])),
}

CONTRADICTED = {
    "gaps": (npy([0, 1, 3]), meta([0, 2, 3]), "1", "2", "embeddings lack 2, metadata lack 1"),
    "two files": (npy([0, 1]), meta([0, 2]), "1", "2", "embeddings lack 2, metadata lack 1"),
    "an offset that is no count from 1": (
        npy([1, 2, 3]),
        meta([2, 3, 4]),
        "1",
        "2",
        "embeddings lack 4, metadata lack 1",
    ),
    "other padding": (
        npy([0, 9, 10]),
        meta(["00", "10", "11"]),
        "9",
        "10",
        "embeddings lack 11, metadata lack 9",
    ),
    "Spark's": (npy([0, 1, 3]), spark([0, 2, 3]), "1", "2", "embeddings lack 2, metadata lack 1"),
    "Spark's with tasks": (
        npy([0, 1, 3]),
        spark_tasks([0, 2, 3]),
        "1",
        "2",
        "embeddings lack 2, metadata lack 1",
    ),
    "many gaps": (
        npy(n for n in range(3000) if n % 7),
        meta(n for n in range(3000) if n % 7 != 1),
        "1",
        "0",
        # below 3000 = 428 · 7 + 4 are 429 multiples of 7, and as many numbers 7 n + 1
        "embeddings lack 0, 7, 14, 21 and 425 more, metadata lack 1, 8, 15, 22 and 425 more",
    ),
    "a word of hexadecimal letters": (
        npy([0, 1], "/e/face{:04d}.npy"),
        meta([0, 2]),
        "1",
        "2",
        "embeddings lack 2, metadata lack 1",
    ),
    "the same days, other numbers": (
        [f"/d/2023-01-0{day}/emb_{n}.npy" for day, n in ((5, 0), (5, 1), (6, 0))],
        [f"/d/2023-01-0{day}/meta_{n}.parquet" for day, n in ((5, 0), (5, 1), (6, 1))],
        "6/0",
        "6/1",
        "embeddings lack 6/1, metadata lack 6/0",
    ),
    "years that agree, numbers that contradict": (
        ["/d/2023/emb_0.npy", "/d/2024/emb_1.npy"],
        ["/d/2023/meta_0.parquet", "/d/2024/meta_2.parquet"],
        "2024/1",
        "2024/2",
        "embeddings lack 2024/2, metadata lack 2024/1",
    ),
    "words": (
        npy(["cat", "dog"]),
        meta(["cat", "fox"]),
        "dog",
        "fox",
        "embeddings lack fox, metadata lack dog",
    ),
    "numbers that repeat under other words": (
        npy(["cat_0", "cat_1", "dog_0"]),
        meta(["cat_0", "cat_1", "fox_0"]),
        "dog",
        "fox",
        "embeddings lack fox, metadata lack dog",
    ),
    "another order": (
        npy([0, 1, 2]),
        meta([0, 2, 1]),
        "1",
        "2",
        "the same ones are there in another order",
    ),
}

UNTOLD = {
    "from 0 and from 1": (npy(range(5)), meta(range(1, 6)), "numbered unlike"),
    "other ranges": (npy(range(5)), meta(range(100, 105)), "numbered unlike"),
    "rows and files": (npy(range(0, 5000, 1000)), meta(range(5)), "numbered unlike"),
    "ranges of rows": (
        [f"/e/emb_{n * 1000}_{n * 1000 + 999}.npy" for n in range(2)],
        meta(range(2)),
        "numbered unlike",
    ),
    "numbers that begin anew every day": (
        npy(range(4)),
        [f"/d/2023-01-0{day}/meta_{n}.parquet" for day in (5, 6) for n in (0, 1)],
        "numbered unlike",
    ),
    "numbers on one side": (npy(range(2)), meta(["a", "b"]), "numbered unlike"),
    "other words": (npy("ab"), meta("xy"), "without numbers"),
    "hashes of their own": (npy(HASHES[:9]), meta(HASHES[9:18]), "without numbers"),
    "hashes of which some look like numbers": (
        npy(["face0001", *HASHES[:3]]),
        meta([*HASHES[3:6], "cafe0007"]),
        "numbered unlike",
    ),
    "one file, other numbers": (npy([0]), meta([1]), "the numbers of their names differ"),
}


@pytest.mark.parametrize("name", list(CONFIRMED))
def test_names_that_run_alike_confirm_the_order(name):
    paths, metadata_paths = CONFIRMED[name]
    assert check_pairs("embeddings", paths, metadata_paths) is None


@pytest.mark.parametrize("name", list(CONTRADICTED))
def test_names_that_contradict_the_order_are_refused_with_what_is_missing(name):
    paths, metadata_paths, own, other, lacking = CONTRADICTED[name]
    with pytest.raises(InputError) as error:
        check_pairs("embeddings", paths, metadata_paths)
    assert f", but their names say {own} and {other}: {lacking}. Each row needs" in str(error.value)
    assert "bring the missing files" in str(error.value)


@pytest.mark.parametrize("name", list(UNTOLD))
def test_names_without_numbers_are_reported_as_paired_by_order(name):
    paths, metadata_paths, says = UNTOLD[name]
    how = check_pairs("embeddings", paths, metadata_paths)
    assert says in how
    assert f"{paths[0]} with {metadata_paths[0]}" in how


@given(st.data())
def test_any_two_downloads_with_gaps_are_refused_unless_the_same_files_are_missing(data):
    shards = st.sets(st.integers(0, 40), min_size=3, max_size=20)
    own = sorted(data.draw(shards))
    other = sorted(data.draw(shards.filter(lambda drawn: len(drawn) == len(own))))
    names = npy(own, "/e/img_emb_{:04d}.npy"), spark(other)
    if own == other:
        assert check_pairs("embeddings", *names) is None
        return
    assume(set(own) & set(other))
    assume([n + 1 for n in own] != other)
    assume([n + 1 for n in other] != own)
    rises = [{b - a for a, b in pairwise(n)} for n in (own, other)]
    assume(not all(len(rise) == 1 for rise in rises))
    with pytest.raises(InputError) as error:
        check_pairs("embeddings", *names)
    first = next(i for i, (a, b) in enumerate(zip(own, other, strict=True)) if a != b)
    assert str(error.value).startswith(f"{names[0][first]}: would be paired with {names[1][first]}")
    assert f"embeddings lack {min(set(other) - set(own))}" in str(error.value)


def test_missing_numbers_of_other_counts_names_them():
    assert missing_numbers("embeddings", npy([0, 1]), meta([0, 1, 2, 3])) == "embeddings lack 2, 3"
    assert missing_numbers("embeddings", npy("ab"), meta("abc")) == ""
