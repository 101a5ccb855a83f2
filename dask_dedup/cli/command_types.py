r"""Commands and groups as click knows them: ``\b`` in their help, and errors that name options.

A setting has a dotted name, ``keep.order``, and most have an option, ``--keep``. The library's
errors name the setting; who has typed the option reads of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from dask_dedup.errors import SettingsError

__all__ = ["Command", "Group", "as_typed"]

_ORIGIN = "settings: "


class Command(click.Command):
    r"""Reads ``\b`` in a raw docstring as click's mark of lines that are not to be joined."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.help = self.help and self.help.replace("\\b\n", "\b\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error about a setting names the option that was typed."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            error.args = (as_typed(str(error), _typed_options(ctx)), *error.args[1:])
            raise


class Group(click.Group):
    """A group of commands, whose help keeps the lines of its examples, as that of theirs."""

    command_class = Command

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.help = self.help and self.help.replace("\\b\n", "\b\n")


def as_typed(text: str, options: Iterable[tuple[str, str]]) -> str:
    """Return an error's text with options in the place of the settings that they set.

    Parameters
    ----------
    text : str
    options : iterable of (str, str)
        Those that were typed: the name of what each sets, and the option.

    Examples
    --------
    >>> as_typed("settings: keep.merge.caption: unknown", [("keep.merge", "--merge")])
    '--merge caption: unknown'
    >>> as_typed("seed: expected 0 or more, got -1.", [("seed", "--seed")])
    '--seed: expected 0 or more, got -1.'
    """
    lines = text.split("\n")
    for name, option in options:
        known = re.escape(name)
        if "." in name:  # no other word looks like it
            named = rf"(?:^{_ORIGIN})?(?<![\w.\-/]){known}(?!\w)(?:\.(\w+))?"
        else:
            named = rf"^(?:{_ORIGIN})?{known}(?=:)()"
        lines = [re.sub(named, partial(_option_for, option), one) for one in lines]
    return "\n".join(lines)


def _option_for(option: str, found: re.Match[str]) -> str:
    return f"{option} {found[1]}" if found[1] else option


def _typed_options(ctx: click.Context) -> list[tuple[str, str]]:
    return [
        (str(one.name).replace("__", "."), max(one.opts, key=len))
        for one in ctx.command.params
        if isinstance(one, click.Option)
        and ctx.get_parameter_source(str(one.name)) is ParameterSource.COMMANDLINE
    ]
