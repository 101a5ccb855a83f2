"""``[cluster]``: where the workers run. None of it changes the result."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Any

from dask.utils import parse_bytes
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

__all__ = ["DaskClusterSettings", "parse_memory", "parse_walltime"]

_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_WALLTIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def parse_memory(value: Any) -> Any:
    """Turn ``"8GB"`` into bytes, once, here."""
    if value in (None, "", "auto"):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return parse_bytes(str(value))
    except (ValueError, OverflowError) as error:
        raise ValueError("expected a size such as '8GB' or '512MiB'") from error


def parse_walltime(text: str) -> int:
    """Return the seconds of a time as SLURM writes it.

    Examples
    --------
    >>> [parse_walltime(text) for text in ("30", "10:30", "02:00:00", "1-12", "1-12:30")]
    [1800, 630, 7200, 129600, 131400]
    """
    match = _WALLTIME.fullmatch(text)
    if match is None:
        raise ValueError("expected a time such as '08:00:00' or '2-00:00:00'")
    days, *parts = match.groups()
    first, second, third = (int(part or 0) for part in parts)
    if days is not None:  # days-hours[:minutes[:seconds]]
        return int(days) * 86_400 + first * 3600 + second * 60 + third
    if parts[2] is not None:
        return first * 3600 + second * 60 + third
    return first * 60 + second  # minutes[:seconds]


def _spell_time(value: Any) -> Any:
    """Turn TOML's time of day, which an unquoted 08:00:00 is, into text."""
    return value.isoformat() if isinstance(value, time) else value


class DaskClusterSettings(BaseModel):
    """``[cluster]``: where the workers run, and for SLURM what each of its jobs asks for.

    ``[compute]`` says what each worker has, this table what a job has: ``processes`` workers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: str = "local"
    """where the workers run: local, slurm, or the address of a scheduler, tcp://HOST:PORT or
    tls://HOST:PORT"""

    queue: str | None = None
    """SLURM's partition [default: SLURM's]"""

    account: str | None = None
    """account that the jobs are charged to [default: SLURM's]"""

    walltime: Annotated[str, BeforeValidator(_spell_time)] = "08:00:00"
    """time limit of each job; its workers hand over their work before it ends"""

    cores: Annotated[int, Field(ge=1)] | None = None
    """cores of each job [default: processes times compute.threads]"""

    memory: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(parse_memory)] = None
    """memory of each job, such as 64GB [default: processes times compute.memory]"""

    processes: Annotated[int, Field(ge=1)] = 1
    """worker processes of each job"""

    minimum_jobs: Annotated[int, Field(ge=1)] = 1
    """jobs that are always there; a lost one is replaced"""

    maximum_jobs: Annotated[int, Field(ge=1)] | None = None
    """jobs at most, while there is work for them [default: minimum_jobs]"""

    interface: str | None = None
    """network interface of scheduler and workers, such as ib0 [default: the system's]"""

    job_extra_directives: tuple[str, ...] = ()
    """further #SBATCH lines without that word, such as --gres=gpu:1"""

    job_script_prologue: tuple[str, ...] = ()
    """lines of the job script before the worker starts, such as module load cuda"""

    environment: dict[str, str] = Field(default_factory=dict)
    """environment variables of the workers; no secrets: sbatch hands on those of your shell"""

    python: str | None = None
    """Python on the nodes [default: the path of this one]"""

    local_directory: str | None = None
    """folder on each node for what workers spill [default: the node's temporary folder]"""

    log_directory: str = "slurm-logs"
    """folder that all nodes see, for what the jobs print"""

    wait_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 720.0
    """how long to wait for a worker while there is none"""

    allowed_failures: Annotated[int, Field(ge=1)] = 20
    """workers of SLURM that may be lost at one task before it is held responsible"""

    dashboard: bool = True
    """whether Dask's dashboard shows the workers, over HTTP; it cannot start anything"""

    dashboard_address: str = "127.0.0.1:0"
    """where the dashboard listens; another interface shows it to others"""

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind in ("local", "slurm") or re.fullmatch(r"(tcp|tls)://[^/@\s]+:\d+", kind):
            return kind
        raise ValueError("expected local, slurm, tcp://HOST:PORT or tls://HOST:PORT")

    @field_validator("walltime")
    @classmethod
    def _is_time(cls, walltime: str) -> str:
        if parse_walltime(walltime) < 120:
            raise ValueError("expected at least two minutes, such as '08:00:00'")
        return walltime

    @field_validator("environment")
    @classmethod
    def _has_no_secret(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(f"{name!r} is no name of an environment variable")
            if _SECRET.search(name):
                raise ValueError(
                    f"{name} looks like a secret, which does not belong into a file of settings: "
                    f"export it in the shell; sbatch hands it on"
                )
        return environment

    @model_validator(mode="after")
    def _bounds_fit(self) -> DaskClusterSettings:
        if self.most_jobs < self.minimum_jobs:
            raise ValueError(
                f"cluster.maximum_jobs {self.maximum_jobs} is below cluster.minimum_jobs "
                f"{self.minimum_jobs}"
            )
        return self

    @property
    def listens_at(self) -> str:
        """Address of the scheduler's HTTP server; without a dashboard, of one that is closed."""
        return self.dashboard_address if self.dashboard else "127.0.0.1:0"

    @property
    def most_jobs(self) -> int:
        """Jobs at most."""
        return self.minimum_jobs if self.maximum_jobs is None else self.maximum_jobs
