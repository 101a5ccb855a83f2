"""Workers as SLURM jobs, through dask-jobqueue: the job's text, its limits, the queue's words.

1. Nothing is started before `sbatch --test-only` has accepted the job script.
2. Dask's adaptive scaling keeps the number of jobs between both bounds; a lost job is replaced.
3. Workers leave before their job's time is over, each a little sooner or later than the others.
"""

from __future__ import annotations

import gc
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Security

from dask_dedup.errors import ClusterError
from dask_dedup.runtime.forkserver import NOTHING, Preload, worker_environment
from dask_dedup.runtime.security import HTTP_CLOSER, http_settings, own_security
from dask_dedup.settings.dask_cluster_settings import DaskClusterSettings, parse_walltime
from dask_dedup.settings.run_settings import ComputeSettings, Settings

__all__ = ["job_script", "queue_state", "start_slurm"]

logger = logging.getLogger(__name__)

_UNKNOWN_ADDRESS = "tls://DRIVER:PORT"  # in a script that is only shown
_UNKNOWN_FILES = Security(
    require_encryption=True,
    tls_ca_file="LOGS/KEYS/cert.pem",
    tls_worker_cert="LOGS/KEYS/cert.pem",
    tls_worker_key="LOGS/KEYS/key.pem",
)
_LIFETIME = 0.9  # of the walltime, give or take the stagger: time to hand over what a worker holds
_STAGGER = 0.05
_COMMAND_SECONDS = 60


def job_script(
    settings: Settings, preload: Preload = NOTHING, resources: Mapping[str, float] | None = None
) -> str:
    """Return the script of one job, as it is handed to sbatch but for what each run makes anew.

    That are the scheduler's address and the files with certificate and key.
    """
    from dask_jobqueue.slurm import SLURMJob

    shown = {"name": "worker", "protocol": "tls://", "security": _UNKNOWN_FILES}
    with dask.config.set(_dask_settings(settings.cluster)):
        return SLURMJob(
            _UNKNOWN_ADDRESS, **shown, **_job(settings, preload, resources)
        ).job_script()


@contextmanager
def start_slurm(
    settings: Settings, preload: Preload = NOTHING, resources: Mapping[str, float] | None = None
) -> Iterator[Any]:
    """Run SLURM jobs with workers until the block ends; yields a ``SLURMCluster``.

    ``resources``: what each worker offers, such as a GPU that its job has asked for.

    Raises
    ------
    ClusterError
        There is no SLURM here, it rejects the job, or several workers would share a job's GPU.
    """
    from dask_jobqueue import SLURMCluster

    job = settings.cluster
    if resources and job.processes != 1:
        raise ClusterError(
            f"cluster.processes: expected 1 where each worker has a GPU, got {job.processes}: the "
            f"workers of a job would share one. Ask for more jobs instead."
        )
    _check_accepted(job_script(settings, preload, resources))
    options = {"dashboard_address": job.listens_at, "dashboard": job.dashboard}
    with _key_folder(job) as keys, dask.config.set(_dask_settings(job)):
        try:
            cluster = SLURMCluster(
                **_job(settings, preload, resources),
                security=_in_files(own_security(), keys),
                scheduler_options=options,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(f"the scheduler cannot be started: {_innermost(error)}.") from error
        try:
            cluster.adapt(minimum_jobs=job.minimum_jobs, maximum_jobs=job.most_jobs, interval="1s")
            yield cluster
        finally:
            _close(cluster)


@contextmanager
def _key_folder(job: DaskClusterSettings) -> Iterator[Path]:
    """Give a folder for the run's key that all nodes see and other users cannot look into.

    A driver that is killed leaves it behind; the key opens nothing any more.
    """
    logs = Path(job.log_directory).absolute()
    try:
        logs.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(
            prefix=".dask-dedup-keys-", dir=logs, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise ClusterError(
            f"{logs}: cannot be written ({error.strerror or error}). Choose a folder that all "
            f"nodes see with cluster.log_directory."
        ) from error
    with made as folder:
        yield Path(folder)


def _in_files(own: Any, folder: Path) -> Any:
    """Put the workers' key into files, which their command lines name."""
    files = {"cert.pem": own.tls_worker_cert, "key.pem": own.tls_worker_key}
    for name, text in files.items():
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    own.tls_ca_file = own.tls_worker_cert = str(folder / "cert.pem")
    own.tls_worker_key = str(folder / "key.pem")
    return own


def _close(cluster: Any) -> None:
    """End scheduler and jobs.

    A job that was lost, and that Python has not yet collected, fails an assertion in distributed
    (``SpecCluster._close``), which must not end a run that has succeeded.
    """
    gc.collect()
    jobs = {str(worker.job_id) for worker in cluster.workers.values() if worker.job_id}
    try:
        cluster.close()
    except AssertionError:
        jobs |= {str(worker.job_id) for worker in cluster.workers.values() if worker.job_id}
        logger.debug("jobs cancelled: %s", ", ".join(sorted(jobs)))
        if jobs:
            _call("scancel", *sorted(jobs))


def queue_state(cluster: Any) -> str:
    """Return what squeue says of the cluster's jobs, such as "job 17 PENDING (Resources)"."""
    ids = sorted({str(worker.job_id) for worker in cluster.workers.values() if worker.job_id})
    if not ids:
        return "no job submitted yet"
    try:
        ran = _call("squeue", "--noheader", f"--jobs={','.join(ids)}", "--format=job %i %T (%r)")
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"squeue does not answer ({error})"
    lines = [line.strip() for line in ran.stdout.splitlines() if line.strip()]
    if not lines:
        return f"squeue knows nothing of job {', '.join(ids[:5])}: see the log of the job"
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


def _job(
    settings: Settings, preload: Preload, resources: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return the arguments of dask-jobqueue: one Dask thread in each process."""
    job, compute = settings.cluster, settings.compute
    return {
        "queue": job.queue,
        "account": job.account,
        "walltime": job.walltime,
        "job_cpu": job.cores or job.processes * compute.threads,
        "cores": job.processes,  # Dask's threads; those of BLAS come from the environment
        "processes": job.processes,
        "memory": f"{job.memory or job.processes * (compute.memory or 0)}B",
        "interface": job.interface,
        "job_name": "dask-dedup",
        "job_extra_directives": list(job.job_extra_directives),
        "job_script_prologue": _prologue(job, compute),
        "python": job.python or sys.executable,
        "local_directory": job.local_directory,
        "log_directory": str(Path(job.log_directory).absolute()),
        "worker_extra_args": _worker_arguments(job.walltime, preload, resources),
        "death_timeout": 120,
    }


def _worker_arguments(
    walltime: str, preload: Preload, resources: Mapping[str, float] | None
) -> list[str]:
    seconds = parse_walltime(walltime)
    modules = [*preload.workers, HTTP_CLOSER]
    return [
        "--no-dashboard",
        *(word for module in modules for word in ("--preload", module)),
        "--lifetime",
        f"{_LIFETIME * seconds:.0f}s",
        "--lifetime-stagger",
        f"{_STAGGER * seconds:.0f}s",
        *(word for name, n in (resources or {}).items() for word in ("--resources", f"{name}={n}")),
    ]


def _prologue(job: DaskClusterSettings, compute: ComputeSettings) -> list[str]:
    variables: Mapping[str, str] = {**worker_environment(compute.threads), **job.environment}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return [*exports, *job.job_script_prologue]


def _dask_settings(job: DaskClusterSettings) -> dict[str, Any]:
    """Return Dask's own settings for workers that come and go.

    ``allowed-failures``: a task is charged with every worker that is lost while it runs, be it
    cancelled, preempted or on a node that fails; at Dask's default of 3 a task of an hour fails a
    run on a busy cluster through no fault of its own. A task that does kill its workers, for want
    of memory, still ends the run.
    """
    return {
        **http_settings(job.dashboard),
        "distributed.deploy.lost-worker-timeout": "2s",  # then a lost job is replaced
        "distributed.scheduler.worker-ttl": "2 minutes",  # without a heartbeat: lost
        "distributed.scheduler.allowed-failures": job.allowed_failures,
        "distributed.scheduler.no-workers-timeout": f"{job.wait_minutes * 60}s",
        "distributed.worker.lifetime.restart": False,
        "distributed.worker.memory.pause": False,  # it would wait for ever; see `local_cluster`
    }


def _check_accepted(script: str) -> None:
    """Ask sbatch whether it would take the job."""
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "--cluster slurm: there is no sbatch on this machine. Start this command where jobs "
            "are submitted, or use --cluster local."
        )
    with tempfile.NamedTemporaryFile("w", prefix="dask-dedup-", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            ran = _call("sbatch", "--test-only", file.name)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"sbatch does not answer: {error}.") from error
    if ran.returncode:
        words = " ".join((ran.stderr or ran.stdout).split())
        raise ClusterError(
            f"SLURM rejects the job: {words}. See [cluster] in the settings; "
            f"`dask-dedup cluster-script` prints the job script."
        )


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
    )


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
