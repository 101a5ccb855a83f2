"""Help in groups: the list of the commands, and the options of a command that has many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from dask_dedup.cli.command_types import Command

__all__ = ["COMMAND_GROUPS", "TERMS", "GroupedCommand", "write_groups"]

_REST = "Other"

#: Headings of `dask-dedup --help`, and the commands below each.
COMMAND_GROUPS: Mapping[str, Sequence[str]] = {
    "Find duplicates": ("run", "plan", "status", "warm-up"),
    "Look at the result": ("report", "show", "sweep", "sample", "precision"),
    "Use the result": ("relabel", "keep", "export", "apply"),
    "The paper's chain": (
        "fit-compressor", "compress", "build-index", "search", "calibrate", "evaluate", "verbatim",
    ),
    "Clusters of machines": ("cluster-script",),
}  # fmt: skip

#: Explained once, below the commands.
TERMS: Mapping[str, str] = {
    "DATA, DATASET": "the data set: a folder with img_emb/*.npy and metadata/*.parquet, a folder "
    "of .npy or .parquet files, or one such file; a path, or a URL such as s3://bucket/folder",
    "OUT": "the folder that run writes its result into; the commands after it read it",
    "threshold": "two rows are duplicates from this cosine of their embeddings on",
    "cluster": "rows that duplicates link to each other, also through others; its first row is "
    "its representative, and row_id, the position in DATA, numbers it",
    "linkage": "which rows of a cluster are dropped. star: those for which a row stays that is "
    "as alike as the threshold says, its witness; components: all but one",
    "forest": "the strongest links, from which OUT answers other thresholds without a search",
    "audit": "sampled rows compared with all rows by brute force: how much a run has missed",
}


class GroupedCommand(Command):
    """A command whose options are listed under headings.

    Parameters
    ----------
    option_groups : mapping
        Headings to the names of options, without their hyphens in front.
    """

    def __init__(
        self, *arguments: Any, option_groups: Mapping[str, Sequence[str]], **keywords: Any
    ) -> None:
        super().__init__(*arguments, **keywords)
        self.option_groups = option_groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each under its heading."""
        entries = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                name = max(parameter.opts, key=len).lstrip("-")
                entries[name] = record
        write_groups(formatter, self.option_groups, entries)


def write_groups(
    formatter: click.HelpFormatter,
    groups: Mapping[str, Iterable[str]],
    entries: Mapping[str, tuple[str, str]],
) -> None:
    """Write entries under the headings that name them; those that none names come last."""
    named = {name for names in groups.values() for name in names}
    rest = [name for name in entries if name not in named]
    for heading, names in [*groups.items(), (_REST, rest)]:
        rows = [entries[name] for name in names if name in entries]
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)
