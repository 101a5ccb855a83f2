"""Who may speak with scheduler and workers: those that hold a certificate of the run's own.

Whoever reaches a scheduler of Dask's runs code as its owner. So driver, scheduler and workers of
one run trust one key that is made for it, and speak TLS. The dashboard needs no key: it only shows.

As a preload of Dask's, ``--preload dask_dedup.runtime.security``, this module closes the HTTP
server that every process of Dask's opens; Dask itself has no switch for it.
"""

from __future__ import annotations

from typing import Any

from distributed import Security

from dask_dedup.errors import ClusterError

__all__ = ["HTTP_CLOSER", "dask_setup", "http_settings", "own_security"]

HTTP_CLOSER = __name__  # as a preload
#: What the dashboard serves; nothing of it changes or starts anything.
_SHOWN = ("prometheus", "info", "json")


def own_security() -> Security:
    """Return a key and a certificate of one run, which no other process knows.

    Raises
    ------
    ClusterError
        They cannot be made.
    """
    try:
        return Security.temporary()
    except ImportError as error:
        raise ClusterError(
            "the package cryptography is missing, which makes the keys that keep other users out "
            "of the workers: pip install cryptography."
        ) from error


def http_settings(is_shown: bool) -> dict[str, Any]:
    """Return Dask's settings of its HTTP servers: a dashboard that only shows, or none at all.

    Workers have none: all that is to be seen of them is on the scheduler's.
    """
    shown = [f"distributed.http.scheduler.{name}" for name in _SHOWN]
    shown += ["distributed.http.health", "distributed.http.statics"]
    return {
        "distributed.scheduler.http.routes": shown if is_shown else [],
        "distributed.scheduler.preload": [] if is_shown else [HTTP_CLOSER],
        "distributed.worker.http.routes": [],
    }


def dask_setup(server: Any) -> None:
    """Close the HTTP server of a scheduler or worker, before it is known to anyone."""
    server.http_server.stop()
