"""The command's group, and what its commands share: options from settings, messages, errors."""

from __future__ import annotations

import errno
import logging
import os
import tomllib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
from click.shell_completion import CompletionItem
from rich.console import Console

from dask_dedup.cli.command_types import Group
from dask_dedup.cli.help_groups import COMMAND_GROUPS, TERMS, write_groups
from dask_dedup.cli.terminal import Terminated, end_code, end_word, note_start
from dask_dedup.errors import ClusterError, DedupError, SettingsError
from dask_dedup.paths import AnyPath, as_path, is_remote
from dask_dedup.runtime.forkserver import stop_server
from dask_dedup.settings.option_names import OPTIONS
from dask_dedup.settings.run_settings import Settings, load_settings

__all__ = [
    "LOCAL_PATH",
    "PATH",
    "Group",
    "any_setting",
    "chosen_settings",
    "configure_logging",
    "escaped",
    "flag",
    "input_settings",
    "keep_settings",
    "main",
    "open_console",
    "overwriting",
    "say",
    "setting",
    "switch",
    "training_device",
    "verbosity",
    "worker_settings",
]


class _AnyPathType(click.ParamType):
    """A local path or the URL of an object store."""

    name = "path or URL"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> AnyPath:
        """Return what the text names."""
        return as_path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Let the shell complete names of files."""
        return [CompletionItem(incomplete, type="file")]


class _LocalPathType(_AnyPathType):
    """A path on a disk."""

    name = "path"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Path:
        """Return what the text names."""
        path = super().convert(value, param, context)
        if is_remote(path):
            raise SettingsError(f"{path}: evaluations write to disks only; give a local folder.")
        return path


logger = logging.getLogger(__name__)

PATH = _AnyPathType()
LOCAL_PATH = _LocalPathType()


class _ConsoleHandler(logging.Handler):
    """Prints each message as one line, above a progress bar if there is one."""

    def __init__(self, say_line: Callable[[str], None]) -> None:
        super().__init__()
        self.say_line = say_line

    def emit(self, record: logging.LogRecord) -> None:
        self.say_line(self.format(record))


class _Commands(Group):
    """Lists commands in groups; turns errors meant for people into one line and exit code 2."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each under its heading, and then what their words mean."""
        width = formatter.width - 20
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        entries = {
            name: (name, command.get_short_help_str(width))
            for name, command in found.items()
            if command is not None
        }
        write_groups(formatter, COMMAND_GROUPS, entries)
        with formatter.section("Terms"):
            formatter.write_dl([*TERMS.items()])

    def invoke(self, context: click.Context) -> Any:
        note_start()
        try:
            return super().invoke(context)
        except KeyboardInterrupt as stop:  # before or after the work, which says more
            stop_server()
            click.echo(f"dask-dedup: {end_word(stop)}", err=True)
            context.exit(end_code(stop))
        except Terminated as stop:
            stop_server()
            click.echo(f"dask-dedup: {end_word(stop)}", err=True)
            context.exit(end_code(stop))
        except DedupError as error:
            lines = str(error).split("\n") if isinstance(error, ClusterError) else [str(error)]
            click.echo("\n".join(map(escaped, ["dask-dedup: " + lines[0], *lines[1:]])), err=True)
            context.exit(2)
        except OSError as error:
            if error.errno is None or isinstance(error, BrokenPipeError):
                raise
            path = error.filename2 or error.filename
            where = f"{path}: " if path else ""
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = " Make room; the same command continues where this stopped." * is_full
            said = f"dask-dedup: {where}{os.strerror(error.errno)}.{advice}"
            click.echo(escaped(said), err=True)
            logger.debug("where it came from", exc_info=error)
            context.exit(2)


def setting(name: str, kind: Any = None) -> Callable:
    """Return the option that sets what ``name`` is short for: its text and default are those there.

    ``kind``: of the value; without, one of those that the setting names.
    """
    if kind is None:
        kind = click.Choice(get_args(_field_of(OPTIONS[name]).annotation))
    return click.option(
        _flag_of(name), _destination(name), type=kind, default=None, help=_help_of(OPTIONS[name])
    )


def switch(name: str) -> Callable:
    """Return the pair of flags that sets what ``name`` is short for to true or false."""
    flags = f"{_flag_of(name)}/--no-{name.replace('_', '-')}"
    return click.option(flags, _destination(name), default=None, help=_help_of(OPTIONS[name]))


def flag(name: str) -> Callable:
    """Return the flag that sets what ``name`` is short for to true."""
    return click.option(
        _flag_of(name),
        _destination(name),
        flag_value=True,
        default=None,
        help=_help_of(OPTIONS[name]),
    )


def _flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _destination(name: str) -> str:
    return OPTIONS[name].replace(".", "__")


def input_settings(command: Callable) -> Callable:
    """Add the options that say what of a data set is read."""
    for option in (
        flag("skip_bad_parts"),
        setting("drop_columns", str),
        setting("columns", str),
        setting("caption_column", str),
        setting("url_column", str),
        setting("embedding_column", str),
        setting("text_embeddings", str),
        setting("image_embeddings", str),
        setting("metadata", str),
        setting("modality"),
    ):
        command = option(command)
    return command


def keep_settings(command: Callable) -> Callable:
    """Add the options that say which copies stay."""
    for option in (
        setting("decisions", str),
        setting("merge", str),
        setting("max_per_cluster", int),
        setting("protect", str),
        setting("keep", str),
    ):
        command = option(command)
    return command


def worker_settings(command: Callable) -> Callable:
    """Add the options that say what computes: how many workers, how large, and where."""
    for option in (
        any_setting,
        switch("dashboard"),
        setting("cluster", str),
        setting("memory", str),
        setting("threads", int),
        setting("workers", int),
    ):
        command = option(command)
    return command


def training_device(command: Callable) -> Callable:
    """Add the option that says what networks are trained on."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="where networks are trained; cuda and auto (a GPU if there is one) are experimental",
    )(command)


def overwriting(command: Callable) -> Callable:
    """Add the option that begins anew."""
    text = "begin anew, whatever an earlier command left there"
    return click.option("--overwrite", is_flag=True, help=text)(command)


def verbosity(command: Callable) -> Callable:
    """Add the options that say how much is printed; see `open_console`."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="print errors only"),
        click.option("-v", "--verbose", is_flag=True, help="log what is done and why"),
    ):
        command = option(command)
    return command


def any_setting(command: Callable) -> Callable:
    """Add the option that sets any setting by its name."""
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="any setting by its name in TOML, such as cells.probes=12; may be repeated",
    )(command)


def chosen_settings(
    options: dict[str, Any],
    config: str | AnyPath | None = None,
    used: Sequence[str] = (),
) -> Settings:
    """Return the settings of a command: defaults, then ``config``, then ``--set``, then options.

    Parameters
    ----------
    options : dict
        What click hands to the command: names of settings with ``__`` for the dot, and
        ``assignments`` of `any_setting`.
    config : path, optional
    used : sequence of str
        Tables and settings that the command uses; ``--set`` of another is refused. Empty: all.

    Raises
    ------
    SettingsError
    """
    given = dict(_parse_assignment(text) for text in options.get("assignments", ()))
    foreign = [key for key in given if used and key.split(".")[0] not in used]
    if foreign:
        raise SettingsError(
            f"--set {foreign[0]}: this command does not use it; it takes {', '.join(used)}."
        )
    for name, value in options.items():
        if name != "assignments" and value is not None:
            given[name.replace("__", ".")] = value
    return load_settings(config, given)


def _parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value``; what is no TOML value is taken for a string."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not (equals and key):
        raise SettingsError(f"--set {text}: expected KEY=VALUE, such as cells.probes=12.")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value
    return key, parsed["value"] if list(parsed) == ["value"] else value


def _field_of(key: str) -> Any:
    *tables, name = key.split(".")
    model: Any = Settings
    for table in tables:
        model = model.model_fields[table].annotation
    return model.model_fields[name]


def _help_of(key: str) -> str:
    field = _field_of(key)
    text = str(field.description)
    if field.default is not None and "[default" not in text:
        text += f" [default: {field.default}]"
    return text


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask_dedup", prog_name="dask-dedup")
def main() -> None:
    """Find the duplicates in image-text data sets, by their embeddings.

    `dask-dedup run DATA OUT` finds them, `dask-dedup export OUT DEST` writes the data set without
    them. `dask-dedup COMMAND --help` says the rest of each command.

    Completion by the shell (zsh_source, fish_source for others), in ~/.bashrc:

    \b
      eval "$(_DASK_DEDUP_COMPLETE=bash_source dask-dedup)"
    """  # noqa: D301  \b is a character: click leaves the lines below it as they are


def open_console(verbose: bool, quiet: bool) -> Console:
    """Return the console for messages, standard error, where the package's log goes too."""
    console = Console(stderr=True, quiet=quiet)
    configure_logging(console, verbose, quiet)
    return console


def configure_logging(console: Console, verbose: bool, quiet: bool) -> Callable[[str], None]:
    """Print what the package logs, as much of it as is wanted; return what prints other lines.

    With ``verbose`` the time stands before each line.
    """
    say_line = partial(_say_when if verbose else say, console)
    handler = _ConsoleHandler(say_line)
    handler.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    logger = logging.getLogger("dask_dedup")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)  # OUT/log.txt takes what is logged
    logger.propagate = False
    return say_line


def _say_when(console: Console, text: str) -> None:
    say(console, f"{datetime.now():%H:%M:%S} {text}")


def escaped(text: str) -> str:
    r"""Return a text with what cannot be printed shown as in Python (``\x1b``).

    Names of files and columns may hold what terminals obey, or no character at all.
    """
    if text.isprintable():
        return text
    shown = [c if c.isprintable() else c.encode("unicode_escape").decode() for c in text]
    return "".join(shown)


def say(console: Console, text: str) -> None:
    """Print one line as it is: a path may hold what rich takes for markup, and must not wrap."""
    console.print(escaped(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
