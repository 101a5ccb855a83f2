"""README and the pages of the guide: what they name and link is there.

`test_guide_start.py` and `test_guide_results.py` run what they say. Blocks that begin with ```text
show what would need other data, machines or stores.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest

from dask_dedup.cli.commands import main

ROOT = Path(__file__).parent.parent
GUIDE = sorted((ROOT / "examples" / "guide").glob("*.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *GUIDE]}


@pytest.fixture(params=PAGES)
def page(request) -> Path:
    return PAGES[request.param]


def blocks(path: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def headings(path: Path) -> set[str]:
    """Return the anchors that headings of a page get."""
    lines = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in lines}


def broken_links(path: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    return broken


def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_broken_links_are_seen(tmp_path):
    (tmp_path / "b.md").write_text("# Some limits, here\n")
    path = tmp_path / "a.md"
    path.write_text("[x](gone.md) [y](b.md#some-limits-here) [z](b.md#none) [w](https://x.org/a)\n")
    assert broken_links(path) == ["gone.md", "b.md#none"]


def test_every_page_is_linked_from_readme():
    linked = re.findall(r"\]\((examples/guide/[^)#]+\.md)", PAGES["README.md"].read_text())
    assert sorted(set(linked)) == sorted(name for name in PAGES if name != "README.md")


def test_readme_is_short():
    assert len(PAGES["README.md"].read_text().splitlines()) <= 150


def test_make_targets_are_there(page):
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = re.findall(r"`[^`]*`|^make .*$", page.read_text(), re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z-]+)", " ".join(text)))
    assert named <= made
    assert named or page.name != "README.md"


@cache
def options_of(words: tuple[str, ...]) -> frozenset[str]:
    """Return the options of a command, given by its names."""
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return frozenset(name for one in command.params for name in (*one.opts, *one.secondary_opts))


def commands(path: Path) -> list[list[str]]:
    lines = [
        line
        for kind in ("sh", "text")
        for one in blocks(path, kind)
        for line in [*one.splitlines()]
    ]
    inline = re.findall(r"`(dask-dedup [^`]*)`", " ".join(path.read_text().split()))
    return [shlex.split(line) for line in [*lines, *inline] if line.startswith("dask-dedup ")]


def test_commands_and_options_are_those_that_there_are(page):
    for words in commands(page):
        names: tuple[str, ...] = ()
        if not words[1].startswith("-") and words[1] != "COMMAND":
            is_group = isinstance(main.commands.get(words[1]), click.Group)
            names = tuple(words[1:3]) if is_group else (words[1],)
        known = options_of(names) | {"--help"}
        assert {word for word in words if word.startswith("-")} <= known, words


def test_options_in_the_text_are_those_that_there_are(page):
    everywhere: set[str] = {"--help", "--index-url"}  # pip's
    everywhere |= {"--nthreads", "--resources", "--gres"}  # Dask's, SLURM's
    pending: list[tuple[tuple[str, ...], click.Command]] = [((), main)]
    while pending:
        names, command = pending.pop()
        everywhere |= options_of(names)
        if isinstance(command, click.Group):
            pending += [((*names, name), one) for name, one in command.commands.items()]
    text = " ".join(re.findall(r"`[^`]*`", page.read_text()))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= everywhere
