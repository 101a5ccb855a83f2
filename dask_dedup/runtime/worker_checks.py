"""What is asked of workers before they are given work: that they are there, and can do it."""

from __future__ import annotations

import importlib.metadata
import logging
import time
import uuid
from pathlib import Path

from distributed import Client

from dask_dedup.errors import ClusterError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.runtime.client_executor import TELL_SECONDS, ClientExecutor

__all__ = ["check_same_code", "check_sees", "wait_for_worker"]

logger = logging.getLogger(__name__)


def wait_for_worker(execute: ClientExecutor, wanted: int, seconds: float) -> None:
    """Return once a worker is there; log now and then why there is none."""
    assert execute.state is not None
    began = logged = time.monotonic()
    while not execute.workers():
        now = time.monotonic()
        if execute.client.status == "closed":
            raise ClusterError("the connection to the scheduler was lost and did not come back.")
        if now - began > seconds:
            raise ClusterError(
                f"no worker came within {seconds / 60:g} minutes: {execute.state()}. "
                f"See the jobs' logs; cluster.wait_minutes sets how long to wait."
            )
        if now - logged >= min(TELL_SECONDS, seconds / 2):
            logged = now
            logger.info("waiting for workers, 0 of %d: %s", wanted, execute.state())
        time.sleep(0.2)


def check_same_code(client: Client) -> None:
    """Check that the workers run what this process runs."""
    own = importlib.metadata.version("dask_dedup")
    answers = client.run(importlib.metadata.version, "dask_dedup", on_error="return")
    for worker, answer in answers.items():
        if answer != own:
            found = "not installed" if isinstance(answer, Exception) else f"version {answer}"
            raise ClusterError(
                f"{worker}: dask_dedup is {found} there, here it is version {own}. "
                f"Install the same version for every worker."
            )
    try:
        client.get_versions(check=True)
    except ValueError as error:
        raise ClusterError(f"the workers' packages differ from those here.\n{error}") from error
    threads = max(
        worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()
    )
    if threads > 1:
        logger.warning(
            "the workers run %d tasks at once; start them with --nthreads 1: a task takes the "
            "memory of a worker",
            threads,
        )


def check_sees(client: Client, out: AnyPath | None) -> None:
    """Check that each worker reads and writes in the folder that this process sees."""
    if out is None or is_remote(out):
        return
    out = out.absolute()
    folder = next(path for path in (out, *out.parents) if path.is_dir())
    token = uuid.uuid4().hex
    asked = folder / f".dask-dedup-{token}"
    try:
        asked.write_text(token, encoding="utf-8")
        answers = client.run(_answer_probe, str(asked), on_error="return")
        for worker, answer in answers.items():
            if isinstance(answer, Exception) or not Path(answer).is_file():
                why = f" ({answer})" if isinstance(answer, Exception) else ""
                raise ClusterError(
                    f"{out}: the worker {worker} does not see the folder {folder} as this machine "
                    f"does{why}. Choose a folder that all nodes share, or --cluster local."
                )
    finally:
        for file in folder.glob(f"{asked.name}*"):
            file.unlink(missing_ok=True)


def _answer_probe(path: str) -> str:
    """Answer, on a worker, what the driver has written; return the path of the answer."""
    asked = Path(path)
    answer = asked.with_name(f"{asked.name}-{uuid.uuid4().hex}")
    answer.write_text(asked.read_text(encoding="utf-8"), encoding="utf-8")
    return str(answer)
