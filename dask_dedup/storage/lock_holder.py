"""Who has a lock: what the holder writes into it, and whether it is still there."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

__all__ = ["describe_this_process", "holder_text", "is_dead", "read_holder"]

_SAME_SECONDS = 1.0  # a process's start is computed from clock ticks


def describe_this_process(token: str) -> bytes:
    """Return what a lock says of its holder, as JSON."""
    holder_info = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "machine": _machine(),
        "since": datetime.now(UTC).isoformat(" ", "seconds"),
        "token": token,
    }
    return json.dumps(holder_info, indent=2).encode()


def read_holder(content: bytes) -> dict[str, Any]:
    """Return what a lock says; empty where no run has written it."""
    try:
        return dict(json.loads(content))
    except (TypeError, ValueError):
        return {}


def is_dead(holder_info: Mapping[str, Any]) -> bool:
    """Return whether a process ran on this machine and does no more; elsewhere nobody knows."""
    if holder_info.get("machine") != _machine():
        return False
    try:
        process = psutil.Process(holder_info["pid"])
        is_another = abs(process.create_time() - holder_info["started"]) > _SAME_SECONDS
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def holder_text(holder_info: Mapping[str, Any]) -> str:
    """Return who holds a lock, in words."""
    if "pid" not in holder_info:
        return "a process that left no name"
    host, since = holder_info.get("host"), holder_info.get("since")
    return f"process {holder_info['pid']} on {host}, since {since}"


def _machine() -> str:
    """Return a name of this machine since its start, and of this set of process ids."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return f"{socket.gethostname()} {uuid.getnode():x}"
    return f"{boot.read_text(encoding='ascii').strip()} {os.readlink('/proc/self/ns/pid')}"
