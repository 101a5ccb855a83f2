"""The command `dask-dedup`, also as `python -m dask_dedup`."""

import os
import sys
from contextlib import suppress

from dask_dedup.cli.terminal import (
    end_code,
    end_word,
    listen_to_signals,
    note_start,
    show_on_any_terminal,
)
from dask_dedup.errors import CapacityError, ClusterError
from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.runtime.forkserver import start_server, stop_server


def main() -> None:
    """Run the command; what the workers need is imported beside what the command needs."""
    note_start(is_process=True)
    listen_to_signals()
    show_on_any_terminal()
    try:
        os.environ["PYTHONSAFEPATH"] = "1"  # whatever else is started: see `runtime.forkserver`
        if sys.argv[1:2] == ["run"] and not {"-h", "--help"} & set(sys.argv):
            with suppress(CapacityError, ClusterError):  # the command will say it
                start_server(PRELOAD)
        from dask_dedup.cli.commands import main as command
    except KeyboardInterrupt as stop:  # before anything has begun
        stop_server()
        print(f"dask-dedup: {end_word(stop)}", file=sys.stderr)
        sys.exit(end_code(stop))
    command()


if __name__ == "__main__":
    main()
