"""Which process works on a run, so that two never do. A dead owner's claim is void at once."""

from __future__ import annotations

import os
import pathlib
import uuid

import psutil


def mine() -> str:
    """A name for this journal: process id, when that process started, and a nonce."""
    return f"{os.getpid()}:{_started(os.getpid())}:{uuid.uuid4().hex[:8]}"


def alive(owner: str) -> bool:
    """Whether the process that made the name still runs (its id may have been reused since)."""
    pid, _, rest = owner.partition(":")
    try:
        return _started(int(pid)) == rest.split(":")[0]
    except (psutil.Error, OSError, ValueError, IndexError):
        return False


def _started(pid: int) -> str:
    # Ticks since boot where the kernel says so: unlike psutil's instant they do not move with
    # the wall clock. A zombie is dead to us.
    stat = pathlib.Path(f"/proc/{pid}/stat")
    if pathlib.Path("/proc/self/stat").exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return "dead" if fields[0] in "ZX" else fields[19]
    return f"{psutil.Process(pid).create_time():.0f}"
