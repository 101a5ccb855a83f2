"""Pictures from the web: fetched with limits, and from public addresses alone.

URLs of a data set are strangers' text. A name is resolved here, and the connection goes to an
address that was checked, so that no name, and no redirect, leads into the network of whoever runs
this. What fails is told by a word that can be counted; nothing is raised.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import NamedTuple

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError
from urllib3.util import Retry, Timeout

from dask_dedup.verbatim.pictures import MAX_BYTES

__all__ = ["Fetched", "Fetcher"]

_CHUNK_BYTES = 1 << 16
_RETRIED = (408, 429, 500, 502, 503, 504)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
_AGENT = "dask_dedup (finds verbatim copies of training images)"


class Fetched(NamedTuple):
    """What came of a URL: its ``content``, or empty and a ``problem``.

    Problems are ``no http(s) address``, ``private address``, ``unreachable``, ``timeout``, ``too
    large``, and ``status N``.
    """

    content: bytes
    problem: str = ""


class _PrivateAddressError(HTTPError):
    """Of urllib3's own kind, but none of those that it tries again."""


class Fetcher:
    """Fetches one URL after the other; keeps connections.

    Parameters
    ----------
    seconds : float
        For one URL, redirects and retries included.
    retries : int
        After failures that may pass: no connection, or status 408, 429, 500, 502, 503, 504.
    max_bytes : int
    allow_private : bool
        Also fetch from addresses that are not public: a server of one's own.
    """

    def __init__(
        self,
        seconds: float = 20.0,
        retries: int = 2,
        max_bytes: int = MAX_BYTES,
        allow_private: bool = False,
    ) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._retry = Retry(
            total=retries + 3,
            connect=retries,
            read=retries,
            status=retries,
            redirect=3,
            other=0,
            status_forcelist=_RETRIED,
            allowed_methods=["GET"],
            backoff_factor=0.5,
            backoff_max=seconds / 4,
            respect_retry_after_header=False,  # a server may say an hour
            raise_on_status=False,
        )
        self._pools = urllib3.PoolManager(headers={"User-Agent": _AGENT})
        if not allow_private:
            self._pools.pool_classes_by_scheme = {"http": _PublicPool, "https": _PublicPoolTls}

    def fetch(self, url: str | None) -> Fetched:
        """Return the content of a URL, or why there is none."""
        if url is None or not url.lower().startswith(("http://", "https://")):
            return Fetched(b"", "no http(s) address")
        deadline = time.monotonic() + self._seconds
        try:
            response = self._pools.request(
                "GET",
                url,
                retries=self._retry,
                timeout=Timeout(self._seconds),
                preload_content=False,
            )
        except (HTTPError, OSError, ValueError) as error:
            return Fetched(b"", _word_for(error))
        try:
            if response.status != 200:
                return Fetched(b"", f"status {response.status}")
            content = bytearray()
            while chunk := response.read1(_CHUNK_BYTES):  # what is there; `read` waits for all
                content += chunk
                if len(content) > self._max_bytes:
                    return Fetched(b"", "too large")
                if time.monotonic() > deadline:
                    return Fetched(b"", "timeout")
            return Fetched(bytes(content))
        except (HTTPError, OSError, ValueError) as error:
            return Fetched(b"", _word_for(error))
        finally:
            response.close()


def _word_for(error: BaseException) -> str:
    """Return a word for what kept a URL from being fetched."""
    reason = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(reason, _PrivateAddressError):
        return "private address"
    if isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(
        reason, NewConnectionError
    ):
        return "timeout"
    if isinstance(reason, (urllib3.exceptions.LocationValueError, ValueError)):
        return "no http(s) address"
    return "unreachable"


def _connect_publicly(connection: HTTPConnection) -> socket.socket:
    """Connect to a host's first public address that answers.

    Raises
    ------
    _PrivateAddressError
        One of its addresses is not public.
    """
    try:
        found = socket.getaddrinfo(connection._dns_host, connection.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, f"{connection.host}: {error}") from error
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    for address in addresses:
        if not _is_public(address):
            raise _PrivateAddressError(f"{connection.host}: {address} is not public.")
    last: OSError | None = None
    for address in addresses:
        try:
            return urllib3.util.connection.create_connection(
                (address, connection.port),
                connection.timeout,
                source_address=connection.source_address,
                socket_options=connection.socket_options,
            )
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(connection, str(error)) from error
        except OSError as error:
            last = error
    raise NewConnectionError(connection, f"{connection.host}: {last}")


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


class _PublicConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect_publicly(self)


class _PublicConnectionTls(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect_publicly(self)


class _PublicPool(HTTPConnectionPool):
    ConnectionCls = _PublicConnection


class _PublicPoolTls(HTTPSConnectionPool):
    ConnectionCls = _PublicConnectionTls
