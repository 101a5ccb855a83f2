"""Pictures from the web: fetched with limits, and from public addresses alone.

URLs of a data set are strangers' text. A name is resolved here, and the connection goes to an
address that was checked, so that no name, and no redirect, leads into the network of whoever runs
this. A proxy would resolve the names instead, out of sight: those of the environment are not used.
What fails is told by a word that can be counted; nothing is raised.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
import zlib
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple, Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError
from urllib3.util import Retry, Timeout

from dask_dedup.verbatim.pictures import MAX_BYTES

__all__ = ["Fetched", "Fetcher", "proxies_of_environment"]

_CHUNK_BYTES = 1 << 16
_RETRIED = (408, 429, 500, 502, 503, 504)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given to anybody
_PACKED = ("gzip", "x-gzip", "deflate")
_AGENT = "dask_dedup (finds verbatim copies of training images)"


class Fetched(NamedTuple):
    """What came of a URL: its ``content``, or empty and a ``problem``.

    Problems are ``no http(s) address``, ``private address``, ``unreachable``, ``timeout``, ``too
    large``, ``packed in an unknown way``, and ``status N``.
    """

    content: bytes
    problem: str = ""


class _PrivateAddressError(HTTPError):
    """Of urllib3's own kind, but none of those that it tries again."""


class _TimeOverError(HTTPError):
    """Likewise: no connection is begun once the time is over."""


class Fetcher:
    """Fetches one URL after the other, each on connections of its own; never through a proxy.

    Parameters
    ----------
    seconds : float
        For one URL, redirects and retries included, however slowly a server sends; looking up a
        name alone takes what the system gives it.
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
        self._allow_private = allow_private
        self._pools = urllib3.PoolManager(headers={"User-Agent": _AGENT})
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTls}

    def fetch(self, url: str | None) -> Fetched:
        """Return the content of a URL, or why there is none."""
        if url is None or not url.lower().startswith(("http://", "https://")):
            return Fetched(b"", "no http(s) address")
        with _Attempt(self._seconds, self._allow_private) as attempt:
            found = self._fetch(url)
        self._pools.clear()
        return Fetched(b"", "timeout") if attempt.is_over else found

    def _fetch(self, url: str) -> Fetched:
        try:
            response = self._pools.request(
                "GET",
                url,
                retries=self._retry,
                timeout=Timeout(self._seconds),
                preload_content=False,
                decode_content=False,  # what unpacks to gigabytes is stopped below
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
            return self._unpacked(bytes(content), response.headers.get("Content-Encoding", ""))
        except (HTTPError, OSError, ValueError) as error:
            return Fetched(b"", _word_for(error))
        finally:
            response.close()

    def _unpacked(self, content: bytes, encoding: str) -> Fetched:
        """Unpack what a server has packed, which it was not asked for, up to the largest size."""
        encoding = encoding.strip().lower()
        if encoding in ("", "identity"):
            return Fetched(content)
        if encoding not in _PACKED:
            return Fetched(b"", "packed in an unknown way")
        try:
            plain = zlib.decompressobj(47).decompress(content, self._max_bytes + 1)
        except zlib.error:
            return Fetched(b"", "packed in an unknown way")
        return Fetched(b"", "too large") if len(plain) > self._max_bytes else Fetched(plain)


def proxies_of_environment() -> list[str]:
    """Return the names of the variables that name a proxy; none of them is used."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    return [name for name in os.environ if name.lower() in names and os.environ[name]]


class _Attempt:
    """One URL: whether private addresses are allowed, and the end of its time.

    A server that sends a byte now and then keeps every single wait short. So all connections are
    shut down, whatever waits for them, when the time is over.
    """

    def __init__(self, seconds: float, allow_private: bool) -> None:
        self.allow_private = allow_private
        self.is_over = False
        self._end = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._token = _ATTEMPT.set(self)
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        _ATTEMPT.reset(self._token)
        for one in self._sockets:
            one.close()

    def seconds_left(self) -> float:
        """Return the seconds left.

        Raises
        ------
        _TimeOverError
        """
        left = self._end - time.monotonic()
        if self.is_over or left <= 0:
            self.is_over = True
            raise _TimeOverError("no time is left.")
        return left

    def watch(self, connected: socket.socket) -> socket.socket:
        """Shut a connection down in the end, also once TLS has taken the socket over."""
        with self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(connected.fileno())))
        if self.is_over:  # shut down before it was in the list
            connected.close()
        self.seconds_left()
        return connected

    def _shut_down(self) -> None:
        self.is_over = True
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):  # closed by its server
                    one.shutdown(socket.SHUT_RDWR)


_ATTEMPT: ContextVar[_Attempt] = ContextVar("_ATTEMPT")


def _word_for(error: BaseException) -> str:
    """Return a word for what kept a URL from being fetched."""
    reason = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(reason, _PrivateAddressError):
        return "private address"
    if isinstance(reason, _TimeOverError):
        return "timeout"
    if isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(
        reason, NewConnectionError
    ):
        return "timeout"
    if isinstance(reason, (urllib3.exceptions.LocationValueError, ValueError)):
        return "no http(s) address"
    return "unreachable"


def _connect(connection: HTTPConnection) -> socket.socket:
    """Connect to a host's first address that answers, where all are public or others allowed.

    Raises
    ------
    _PrivateAddressError
        One of its addresses is not public.
    _TimeOverError
    """
    attempt = _ATTEMPT.get()
    attempt.seconds_left()
    try:
        found = socket.getaddrinfo(connection._dns_host, connection.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NewConnectionError(connection, f"{connection.host}: {error}") from error
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    for address in addresses:
        if not (attempt.allow_private or _is_public(address)):
            raise _PrivateAddressError(f"{connection.host}: {address} is not public.")
    last: OSError | None = None
    for address in addresses:
        try:
            return attempt.watch(
                urllib3.util.connection.create_connection(
                    (address, connection.port),
                    attempt.seconds_left(),
                    source_address=connection.source_address,
                    socket_options=connection.socket_options,
                )
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
        elif ip not in _GLOBAL_V6:
            return False
    return ip.is_global and not ip.is_multicast


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _ConnectionTls(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _PoolTls(HTTPSConnectionPool):
    ConnectionCls = _ConnectionTls
