"""The command's group, and what its commands share: options from settings, messages, errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from dask_dedup.config import Settings
from dask_dedup.errors import DedupError

__all__ = ["configure_logging", "main", "setting", "switch", "tell"]


class _ConsoleHandler(logging.Handler):
    """Prints each message as one line, above a progress bar if there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        tell(self.console, self.format(record))


class _Commands(click.Group):
    """Turns the errors that are meant for people into one message and exit code 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except DedupError as error:
            click.echo(f"dask-dedup: {error}", err=True)
            context.exit(2)


def setting(flag: str, key: str, kind: Any = None) -> Callable:
    """Return the option that sets ``key``: text and default are those of the settings."""
    return click.option(flag, key.replace(".", "__"), type=kind, default=None, help=_help_of(key))


def switch(flag: str, key: str) -> Callable:
    """Return the pair of flags that sets ``key`` to true or false."""
    return click.option(flag, key.replace(".", "__"), default=None, help=_help_of(key))


def _help_of(key: str) -> str:
    *tables, name = key.split(".")
    model: Any = Settings
    for table in tables:
        model = model.model_fields[table].annotation
    field = model.model_fields[name]
    text = str(field.description)
    if field.default is not None and "[default" not in text:
        text += f" [default: {field.default}]"
    return text


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask_dedup", prog_name="dask-dedup")
def main() -> None:
    """Find the duplicates in image-text data sets, by their embeddings.

    Shell completion: eval "$(_DASK_DEDUP_COMPLETE=bash_source dask-dedup)"
    """


def configure_logging(console: Console, verbose: bool, quiet: bool) -> None:
    """Print what the package logs, as much of it as is wanted."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = _ConsoleHandler(console)
    logger = logging.getLogger("dask_dedup")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def tell(console: Console, text: str) -> None:
    """Print one line as it is: a path may hold what rich takes for markup, and must not wrap."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
