"""Fetching from a real server of this machine, which is private, and what is refused."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dask_dedup.verbatim import fetch
from dask_dedup.verbatim.fetch import Fetcher, proxies_of_environment


class _Handler(BaseHTTPRequestHandler):
    seen: list[str] = []  # noqa: RUF012  of the class: the server makes an object a request

    def do_GET(self) -> None:
        self.seen.append(self.path)
        name, _, value = self.path[1:].partition("/")
        if name == "status":
            self.send_error(int(value))
        elif name == "flaky" and self.seen.count(self.path) < 3:
            self.send_error(503)
        elif name == "to":
            self.send_response(302)
            self.send_header("Location", f"/{value}")
            self.end_headers()
        elif name == "slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        elif name == "packed":
            way, _, size = value.partition("/")
            plain = b"p" * int(size)
            packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(way, bytes)(plain)
            self.send_response(200)
            self.send_header("Content-Encoding", way)
            self.end_headers()
            self.wfile.write(packed)
        elif name == "short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"p" * 50)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"p" * int(value or 0))

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Give the address of a server of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_fetch_gives_the_content(server: str) -> None:
    assert Fetcher(allow_private=True).fetch(f"{server}/picture/1000") == (b"p" * 1000, "")


def test_fetch_of_this_machine_is_refused_and_asks_nobody(server: str) -> None:
    before = len(_Handler.seen)
    assert Fetcher().fetch(f"{server}/picture/10") == (b"", "private address")
    assert Fetcher().fetch(server.replace("127.0.0.1", "localhost")).problem == "private address"
    assert len(_Handler.seen) == before


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("172.16.3.4", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # metadata of clouds
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b::7f00:1", False),  # NAT64 of it
        ("64:ff9b::808:808", True),  # NAT64 of 8.8.8.8
        ("64:ff9b:1::7f00:1", False),  # NAT64 of a network's own
        ("::127.0.0.1", False),  # of an old form
        ("::ffff:0:127.0.0.1", False),  # translated
        ("fec0::1", False),  # of a site
    ],
)
def test_is_public(address: str, is_public: bool) -> None:
    assert fetch._is_public(address) is is_public


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "ftp://example.org/a",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "a b",
    ],
)
def test_fetch_of_no_web_address_is_refused(url: str | None) -> None:
    assert Fetcher().fetch(url) == (b"", "no http(s) address")


def test_fetch_follows_a_redirect(server: str) -> None:
    assert Fetcher(allow_private=True).fetch(f"{server}/to/picture/7") == (b"p" * 7, "")


def test_fetch_of_endless_redirects_ends(server: str) -> None:
    turns = "to/" * 20
    assert Fetcher(allow_private=True).fetch(f"{server}/{turns}picture/7").problem != ""


def test_fetch_tells_the_status(server: str) -> None:
    before = len(_Handler.seen)
    assert Fetcher(allow_private=True).fetch(f"{server}/status/404") == (b"", "status 404")
    assert len(_Handler.seen) == before + 1  # not asked again


def test_fetch_tries_again_what_may_pass(server: str) -> None:
    assert Fetcher(allow_private=True).fetch(f"{server}/flaky/5") == (b"p" * 5, "")
    assert Fetcher(allow_private=True, retries=1).fetch(f"{server}/status/503") == (
        b"",
        "status 503",
    )


def test_fetch_stops_at_the_size(server: str) -> None:
    fetcher = Fetcher(allow_private=True, max_bytes=100_000)
    assert fetcher.fetch(f"{server}/picture/100000").problem == ""
    assert fetcher.fetch(f"{server}/picture/100001") == (b"", "too large")


def test_fetch_stops_at_the_time(server: str) -> None:
    began = time.monotonic()
    assert Fetcher(seconds=0.5, allow_private=True).fetch(f"{server}/slow") == (b"", "timeout")
    assert time.monotonic() - began < 4


def test_fetch_of_nobody_is_unreachable() -> None:
    fetcher = Fetcher(allow_private=True, retries=0)
    assert fetcher.fetch("http://127.0.0.1:9/") == (b"", "unreachable")
    assert fetcher.fetch("http://nowhere.invalid/a.jpg") == (b"", "unreachable")
    assert Fetcher(retries=0).fetch("http://nowhere.invalid/a.jpg") == (b"", "unreachable")


def test_fetch_of_what_was_cut_off_is_no_picture(server: str) -> None:
    assert Fetcher(allow_private=True, retries=0).fetch(f"{server}/short") == (b"", "unreachable")


@pytest.mark.parametrize("way", ["gzip", "deflate", "identity"])
def test_fetch_unpacks_up_to_the_size(server: str, way: str) -> None:
    fetcher = Fetcher(allow_private=True, max_bytes=100_000)
    assert fetcher.fetch(f"{server}/packed/{way}/100000") == (b"p" * 100_000, "")
    assert fetcher.fetch(f"{server}/packed/{way}/100001") == (b"", "too large")


def test_fetch_of_another_packing_is_told(server: str) -> None:
    found = Fetcher(allow_private=True).fetch(f"{server}/packed/zstd/10")
    assert found == (b"", "packed in an unknown way")


@contextmanager
def _listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give the port of a server that answers each connection in a thread of its own."""

    def serve(one: socket.socket) -> None:
        with one:
            try:
                answer(one)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(one,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("scheme", "begin"), [("http", b"HTTP/1.1 200 OK\r\nX: "), ("https", b"\x16\x03\x03\x40\x00")]
)
def test_fetch_of_a_server_that_sends_a_byte_now_and_then_ends(scheme: str, begin: bytes) -> None:
    def drip(one: socket.socket) -> None:
        one.sendall(begin)
        for _ in range(200):
            one.sendall(b"x")
            time.sleep(0.05)

    with _listening(drip) as port:
        began = time.monotonic()
        url = f"{scheme}://127.0.0.1:{port}/"
        assert Fetcher(seconds=0.5, allow_private=True).fetch(url) == (b"", "timeout")
        assert time.monotonic() - began < 4


def test_fetch_counts_redirects_and_retries_into_the_time() -> None:
    def redirect_late(one: socket.socket) -> None:
        one.recv(1 << 16)
        time.sleep(0.4)
        one.sendall(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")

    with _listening(redirect_late) as port:
        fetcher = Fetcher(seconds=0.6, allow_private=True)
        assert fetcher.fetch(f"http://127.0.0.1:{port}/") == (b"", "timeout")


def test_fetch_leaves_no_connection_open(server: str) -> None:
    fetcher = Fetcher(allow_private=True)
    fetcher.fetch(f"{server}/picture/7")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        fetcher.fetch(f"{server}/picture/7")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_fetch_asks_no_proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def proxy(one: socket.socket) -> None:
        asked.append(one.recv(1 << 16))
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden")

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with _listening(proxy) as port:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        assert {"http_proxy", "https_proxy", "all_proxy"} <= {*proxies_of_environment()}
        assert Fetcher(allow_private=True).fetch(f"{server}/picture/3") == (b"ppp", "")
        assert Fetcher().fetch(f"{server}/picture/3") == (b"", "private address")
        assert not asked
    for name in proxies_of_environment():
        monkeypatch.delenv(name)
    assert proxies_of_environment() == []
