"""What can go wrong that a caller may want to catch.

::

    DedupError
    ├── InputError      the data set is not what was expected
    │   ├── UnreadableError   one of its files cannot be read, or does not fit
    │   └── ColumnError       no type holds what a column has in all parts
    ├── SettingsError   a setting is unknown, out of range, or contradicts another
    ├── OutputError     the output folder cannot be used
    ├── DamagedError    a file that dask_dedup wrote is missing, or not what was written
    ├── CapacityError   the work does not fit into the memory or disk that it was given
    ├── ClusterError    workers cannot be had, or cannot do the work
    └── StoreError      an object store refuses, or cannot be reached; also an OSError

The command line turns every one of them into one message and exit code 2.
"""

__all__ = [
    "CapacityError",
    "ClusterError",
    "ColumnError",
    "DamagedError",
    "DedupError",
    "InputError",
    "OutputError",
    "SettingsError",
    "StoreError",
    "UnreadableError",
]


class DedupError(Exception):
    """Base of all errors that dask_dedup raises on purpose."""


class _FileError(DedupError):
    """An error that one file is to blame for: its ``path``, besides the message."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class InputError(DedupError):
    """The data set is not what was expected; the message names the file."""


class UnreadableError(_FileError, InputError):
    """A file of the data set cannot be read, or does not fit the others.

    Attributes
    ----------
    path : str
        Of the file.
    """


class ColumnError(InputError):
    """A column cannot be carried with its types and values; the message names column and parts.

    No file is to blame: going on without one would lose its rows' metadata.
    """


class SettingsError(DedupError):
    """A setting is unknown, out of range, or contradicts another."""


class OutputError(DedupError):
    """The output folder cannot be used."""


class DamagedError(_FileError, DedupError):
    """A file that dask_dedup wrote and reads back is missing, or not what was written.

    Attributes
    ----------
    path : str
        Of the file.
    """


class CapacityError(DedupError):
    """The work does not fit into the memory or disk that it was given."""


class ClusterError(DedupError):
    """Workers cannot be had where they are wanted, or cannot do the work there."""


class StoreError(DedupError, OSError):
    """An object store refuses, or cannot be reached: ``filename`` and the store's own words.

    Made as ``StoreError(None, words, path)``.
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}." if self.filename else super().__str__()
