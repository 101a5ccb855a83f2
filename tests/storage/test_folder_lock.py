"""The lock of a folder: on a disk, and in a bucket of a real S3 server."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest
from botocore.session import Session
from click.testing import CliRunner

from dask_dedup.cli import commands as cli
from dask_dedup.errors import OutputError
from dask_dedup.paths import as_path
from dask_dedup.storage.claim import Claim
from dask_dedup.storage.folder_lock import LOCK, FolderLock
from dask_dedup.storage.listing import glob_files, names_in
from dask_dedup.storage.objects import exists, move_folder
from dask_dedup.storage.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

QUICK = {"renew_seconds": 0.3, "dead_seconds": 3.0}  # a store's clock counts whole seconds


@pytest.fixture(scope="module")
def bucket(endpoint):
    Session().create_client("s3").create_bucket(Bucket="locks")
    return "s3://locks"


def start(code, *arguments):
    """Start Python on some code, and wait for its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()
    return process


ASK = """
import sys
from pathlib import Path
from dask_dedup.storage.folder_lock import FolderLock
print("ready", flush=True)
while True:
    FolderLock(Path(sys.argv[1])).holder()
"""


def test_acquire_is_never_refused_because_somebody_asks(tmp_path):
    asking = start(ASK, tmp_path)
    try:
        for _ in range(200):
            lock = FolderLock(tmp_path)
            lock.acquire()
            lock.release()
            (tmp_path / LOCK).touch()  # as a killed run leaves it: there is something to ask
    finally:
        asking.kill()
        asking.communicate()


TURNS = """
import os, sys, time
from pathlib import Path
from dask_dedup.errors import OutputError
from dask_dedup.storage.folder_lock import FolderLock
folder, turns, until = Path(sys.argv[1]), 0, time.monotonic() + 3
print("ready", flush=True)
while time.monotonic() < until:
    lock = FolderLock(folder)
    try:
        lock.acquire()
    except OutputError:
        continue
    os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails beside another
    os.unlink(folder / "inside")
    turns += 1
    lock.release()
print(turns)
"""


def test_processes_that_take_turns_are_never_inside_together(tmp_path):
    processes = [start(TURNS, tmp_path) for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sum(int(turns) for turns, _ in outputs) > 100
    assert os.listdir(tmp_path) == []


def test_acquire_waits_for_a_slow_asker_but_not_for_a_run(tmp_path):
    asker = os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(asker, fcntl.LOCK_SH)  # as `holder` does, for a moment
    assert FolderLock(tmp_path).holder() is None  # nor does one asker hide it from another
    with ThreadPoolExecutor(1) as pool:
        lock = FolderLock(tmp_path)
        waiting = pool.submit(lock.acquire)
        time.sleep(0.5)
        os.close(asker)
        waiting.result(5)
    with pytest.raises(OutputError, match="another run is writing"):
        FolderLock(tmp_path).acquire()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_holder_of_a_lock_on_a_disk_is_known_until_it_is_killed(tmp_path):
    assert FolderLock(tmp_path).holder() is None
    process = start(HOLD, tmp_path, "")
    holder = FolderLock(tmp_path).holder()
    assert (holder["pid"], holder["host"]) == (process.pid, socket.gethostname())
    with pytest.raises(OutputError, match=rf"process {process.pid} on {socket.gethostname()}, sin"):
        FolderLock(tmp_path).acquire()
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK).exists()
    assert FolderLock(tmp_path).holder() is None
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()


#: Holds a lock, as a process of this machine or of another; prints at each line whether it has it.
HOLD = """
import json, logging, sys
from dask_dedup.storage.folder_lock import LOCK, FolderLock
from dask_dedup.paths import as_path
import logging, sys
from dask_dedup.storage import lock_holder
from dask_dedup.storage.folder_lock import FolderLock
logging.basicConfig()
periods = map(float, sys.argv[3:])
lock = FolderLock(as_path(sys.argv[1]), False, *periods)
lock.acquire()
if sys.argv[2]:
    path = as_path(sys.argv[1]) / LOCK
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": sys.argv[2]}))
print("ready", flush=True)
for line in sys.stdin:
    print(lock.is_own(), flush=True)
lock.release()
"""


def test_lock_in_a_bucket_is_for_one(bucket):
    folder = as_path(f"{bucket}/locked")
    first, second = FolderLock(folder), FolderLock(folder)
    first.acquire()
    assert second.is_held()
    with pytest.raises(
        OutputError, match=r"another run is writing .*process \d+ on .*--break-lock"
    ):
        second.acquire()
    first.release()
    assert not second.is_held()
    second.acquire()
    second.release()
    assert not glob_files(folder, "**")


def test_lock_of_a_killed_process_of_this_machine_is_taken_over_by_one(bucket):
    folder = as_path(f"{bucket}/killed")
    process = start(HOLD, folder, "")
    process.kill()
    process.communicate()
    assert exists(folder / LOCK)
    assert not FolderLock(folder).is_held()
    locks = [FolderLock(folder) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        taken = [
            task for task in [pool.submit(lock.acquire) for lock in locks] if not task.exception()
        ]
    assert len(taken) == 1
    assert [lock.is_own() for lock in locks].count(True) == 1
    for lock in locks:
        lock.release()
    assert not exists(folder / LOCK)


def test_lock_of_another_machine_is_kept_until_it_is_broken(bucket):
    folder = as_path(f"{bucket}/broken")
    first = FolderLock(folder)
    first.acquire()
    path = folder / LOCK  # which says now that its machine is another
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "elsewhere"}))
    assert FolderLock(folder).is_held()
    with pytest.raises(OutputError, match="another run is writing"):
        FolderLock(folder).acquire()
    second = FolderLock(folder, break_lock=True)
    second.acquire()
    assert second.is_own()
    assert not first.is_own()
    first.release()  # which is not its own any more
    assert FolderLock(folder).is_held()
    second.release()
    assert not FolderLock(folder).is_held()
    assert not glob_files(folder, "**")


def test_lock_in_a_bucket_is_renewed_however_busy_its_process_is(bucket):
    folder = as_path(f"{bucket}/busy")
    lock = FolderLock(folder, **QUICK)
    lock.acquire()
    until = time.monotonic() + 2 * QUICK["dead_seconds"]
    while time.monotonic() < until:
        sum(range(10_000))
    holder = FolderLock(folder, **QUICK).holder()
    assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
    assert holder["renewed_seconds"] <= 2.0
    assert lock.is_own()
    lock.release()
    assert not glob_files(folder, "**")


def test_lock_of_a_run_killed_elsewhere_is_free_after_the_time_said_and_for_one(bucket):
    folder = as_path(f"{bucket}/silent")
    process = start(HOLD, folder, "elsewhere", *QUICK.values())
    time.sleep(1)
    process.kill()
    killed = time.monotonic()
    process.communicate()
    assert FolderLock(folder, **QUICK).is_held()
    with pytest.raises(OutputError, match=r"is free 3 seconds after its last heartbeat"):
        FolderLock(folder, **QUICK).acquire()
    locks = [FolderLock(folder, **QUICK) for _ in range(4)]
    taken = []
    with ThreadPoolExecutor(4) as pool:
        while not taken:
            assert time.monotonic() - killed < 20
            tasks = [pool.submit(lock.acquire) for lock in locks]
            taken = [lock for lock, task in zip(locks, tasks, strict=True) if not task.exception()]
    assert time.monotonic() - killed > QUICK["dead_seconds"] - 1  # of the last second's object
    assert len(taken) == 1
    assert [lock.is_own() for lock in locks] == [lock is taken[0] for lock in locks]
    taken[0].release()
    assert not glob_files(folder, "**")


def test_run_that_was_stopped_for_long_notices_when_it_wakes_up(bucket):
    folder = as_path(f"{bucket}/stopped")
    process = start(HOLD, folder, "", *QUICK.values())
    os.kill(process.pid, signal.SIGSTOP)
    second = FolderLock(folder, **QUICK)
    assert second.is_held()  # it is there, and only stopped
    time.sleep(QUICK["dead_seconds"] + 2)
    assert not second.is_held()
    second.acquire()
    os.kill(process.pid, signal.SIGCONT)
    process.stdin.write("still mine?\n")
    process.stdin.flush()
    assert process.stdout.readline() == "False\n"
    assert second.is_own()
    time.sleep(1)  # it looks by itself, too
    second.release()
    err = process.communicate()[1]
    assert process.returncode == 0, err
    assert "another run has taken this folder" in err
    assert names_in(folder) is None


def test_run_that_wakes_up_after_its_successor_has_ended_notices_too(bucket):
    folder = as_path(f"{bucket}/overslept")
    process = start(HOLD, folder, "", *QUICK.values())
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(QUICK["dead_seconds"] + 2)
    second = FolderLock(folder, **QUICK)
    second.acquire()
    second.release()
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate("still mine?\n")
    assert (process.returncode, out) == (0, "False\n"), err
    assert names_in(folder) is None


def let_in(requests):
    """Let the server answer so many requests more without asking for valid credentials."""
    address = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urlopen(Request(address, str(requests).encode(), {"Content-Type": "text/plain"})).close()


def test_run_that_was_stopped_while_it_publishes_moves_nothing_more(bucket, tmp_path):
    """Its pause begins at the second of three files; meanwhile another takes the folder."""
    folder = as_path(f"{bucket}/publishing")
    (tmp_path / "made").mkdir()
    for name in "abc":
        (tmp_path / "made" / name).write_text(name)
    lock = FolderLock(folder, renew_seconds=1000.0, dead_seconds=2.0)
    moved = []

    def check():
        moved.append(len(moved))
        if len(moved) == 2:
            assert not lock.is_in_doubt()
            time.sleep(4)
            FolderLock(folder, dead_seconds=2.0).acquire()
        claim.check_after_pause()

    with (
        Claim(folder, lambda: None, lock) as claim,
        pytest.raises(OutputError, match="another run has taken this folder"),
    ):
        move_folder(tmp_path / "made", folder / "made", check=check)
    assert names_in(folder / "made") == ["a"]


def test_lock_that_cannot_be_renewed_says_so(bucket, caplog):
    folder = as_path(f"{bucket}/unwritable")
    lock = FolderLock(folder, **QUICK)
    lock.acquire()
    try:
        let_in(0)
        time.sleep(4 * QUICK["renew_seconds"])
    finally:
        let_in("inf")
    time.sleep(4 * QUICK["renew_seconds"])
    lock.release()
    messages = [record.getMessage() for record in caplog.records if "lock" in record.getMessage()]
    assert len(messages) == 2
    assert re.search(
        r"/unwritable: the lock cannot be renewed \(.*(Forbidden|Access Key).*\); after 3 seconds",
        messages[0],
    )
    assert messages[1].endswith("/unwritable: the lock is renewed again")


def test_status_reports_who_has_a_bucket_and_when_it_sent_a_heartbeat(bucket):
    folder = as_path(f"{bucket}/holder")
    with RunFolder(folder, {"finder": "join"}, "input") as run:
        run.begin()
        shown = CliRunner().invoke(cli.main, ["status", str(folder)], catch_exceptions=False)
        assert f"{folder}: running" in shown.stdout
        assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in shown.stdout
        assert re.search(r"its last heartbeat is \d\d? s old", shown.stdout)
    shown = CliRunner().invoke(cli.main, ["status", str(folder)], catch_exceptions=False)
    assert f"{folder}: stopped" in shown.stdout
