"""The command `dask-dedup`, also as `python -m dask_dedup`."""

import sys

from dask_dedup.prefork import start_server


def main() -> None:
    """Run the command; what the workers need is imported beside what the command needs."""
    if sys.argv[1:2] == ["run"] and not {"-h", "--help"} & set(sys.argv):
        start_server()
    from dask_dedup.cli import main as command

    command()


if __name__ == "__main__":
    main()
