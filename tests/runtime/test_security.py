"""Who reaches scheduler, workers and dashboard of a run; real processes, real sockets."""

from __future__ import annotations

import asyncio
import http.client
import stat
from contextlib import suppress
from importlib import import_module

import dask
import psutil
import pytest
from distributed import Security
from distributed.comm import connect

from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.runtime.deployment import local_cluster
from dask_dedup.settings.run_settings import ComputeSettings, DaskClusterSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of connections that are refused
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ONE = ComputeSettings(workers=1, memory=1_500_000_000)


def listening() -> set[tuple[str, int]]:
    """Addresses at which this process and those it has started listen."""
    me = psutil.Process()
    return {
        (one.laddr.ip, one.laddr.port)
        for process in (me, *me.children(recursive=True))
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }


def speaks(address: str, arguments: dict) -> bool:
    """Return whether a server of Dask's shakes hands with who comes with these keys."""

    async def shake() -> bool:
        try:
            comm = await asyncio.wait_for(connect(address, timeout=10, **arguments), 20)
        except (OSError, TimeoutError):
            return False
        comm.abort()
        return True

    return asyncio.run(shake())


def answers_http(address: tuple[str, int], method: str = "GET", path: str = "/health") -> int:
    """Return the status of an answer, 0 without one."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    with suppress(OSError, http.client.HTTPException):
        connection.request(method, path, body="{}" if method != "GET" else None)
        return connection.getresponse().status
    return 0


def test_local_cluster_refuses_clients_without_its_own_key(tmp_path):
    before = listening()
    with local_cluster(ONE, tmp_path / "dask", preload=PRELOAD) as execute:
        address = execute.client.scheduler.address
        assert address.startswith("tls://")
        assert all(worker.startswith("tls://") for worker in execute.workers())
        doors = {port for ip, port in listening() - before}
        assert int(address.rpartition(":")[2]) in doors
        own = execute.client.security.get_connection_args("client")
        other = Security.temporary().get_connection_args("client")
        for there in (address, *execute.workers()):
            assert speaks(there, own)
            assert not speaks(there, other)  # a key, but not this run's
        doors.discard(int(execute.dashboard.rpartition(":")[2].partition("/")[0]))  # it is HTTP's
        assert [port for port in doors if speaks(f"tcp://127.0.0.1:{port}", {})] == []
        assert execute.client.submit(sum, [1, 2]).result() == 3
        private = [path for path in tmp_path.rglob("*") if path.suffix in (".pem", ".crt", ".key")]
        assert private == []
        for path in (tmp_path / "dask").rglob("*"):
            assert not path.stat().st_mode & stat.S_IWOTH, path


def test_dashboard_listens_here_only_and_starts_nothing(tmp_path):
    before = listening()
    with local_cluster(ONE, tmp_path / "dask", preload=PRELOAD) as execute:
        assert {ip for ip, _ in listening() - before} == {"127.0.0.1"}
        host, _, port = (
            execute.dashboard.removeprefix("http://").removesuffix("/status").partition(":")
        )
        shown = host, int(port)
        for path in ("/status", "/health", "/info/main/workers.html"):
            assert answers_http(shown, path=path) == 200
        for path in ("/api/v1", "/api/v1/retire_workers", "/proxy/1/127.0.0.1/x"):
            for method in ("GET", "POST", "PUT", "DELETE"):
                assert answers_http(shown, method, path) in (404, 405), (method, path)
        modules = dask.config.get("distributed.scheduler.http.routes")
        own = [route[1] for name in modules for route in import_module(name).routes]
        assert len(own) > 10
        for handler in own:  # nothing that takes an order
            assert not {"post", "put", "delete", "patch"} & set(vars(handler)), handler
        assert len(execute.workers()) == 1


def test_no_dashboard_listens_nowhere(tmp_path):
    before = listening()
    with local_cluster(
        ONE, tmp_path / "dask", DaskClusterSettings(dashboard=False), preload=PRELOAD
    ) as execute:
        assert execute.dashboard == ""
        doors = listening() - before
        addresses = {execute.client.scheduler.address, *execute.workers()}
        addresses |= {worker["nanny"] for worker in execute.workers().values()}
        assert {f"tls://{ip}:{port}" for ip, port in doors} == addresses
        assert [door for door in doors if answers_http(door)] == []


def test_worker_of_a_run_has_no_http_server(tmp_path):
    before = listening()
    with local_cluster(ONE, tmp_path / "dask", preload=PRELOAD) as execute:
        serving = [door for door in listening() - before if answers_http(door)]
        assert len(serving) == 1
        assert str(serving[0][1]) in execute.dashboard


def test_own_security_without_cryptography_says_so(monkeypatch):
    import sys

    from dask_dedup.errors import ClusterError
    from dask_dedup.runtime.security import own_security

    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ClusterError, match="the package cryptography is missing"):
        own_security()
