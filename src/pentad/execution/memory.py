"""Memory that this process may still take: under the machine's, a control group's and its own limit."""

from __future__ import annotations

import pathlib
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

import psutil

from pentad.types import Clock

_FRESH_S: Final = 0.05
"""A reading takes some 50 microseconds, and serves whoever asks within this time."""
_PAGE: Final = resource.getpagesize()
_LIMITS: Final = ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5))
"""Limit of this process to the field of /proc/self/statm that counts against it."""

Reading = Callable[[], int]


class FreeMemory:
    """Bytes that are free, read again when the latest reading is old. Any thread may ask.

    Args:
        clock: says how old a reading is.
        read: what to read; the default is `free_bytes`.
    """

    __slots__ = ("_clock", "_lock", "_read", "_read_s", "_value")

    def __init__(self, clock: Clock, read: Reading | None = None) -> None:
        self._clock = clock
        self._read = read or free_bytes
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._value = 0

    def bytes(self) -> int:
        """What is free; at most 50 ms old."""
        now_s = self._clock()
        with self._lock:
            if not 0 <= now_s - self._read_s < _FRESH_S:
                self._value, self._read_s = self._read(), now_s
            return self._value


def free_bytes(
    proc: pathlib.Path = pathlib.Path("/proc/self"), cgroups: pathlib.Path = pathlib.Path("/sys/fs/cgroup")
) -> int:
    """The least of what the machine has, what control groups leave, and what this process may still map."""
    found = [int(psutil.virtual_memory().available), *_group_rests(proc, cgroups), *_own_rests(proc)]
    return max(0, min(found))


def _group_rests(proc: pathlib.Path, cgroups: pathlib.Path) -> Iterator[int]:
    """What each control group above this process leaves; its cache of files is given back when needed."""
    for group in _groups(proc, cgroups):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            yield limit - used + _file_bytes(group / "memory.stat")


def _groups(proc: pathlib.Path, cgroups: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders of this process's groups and those above, of either version; in a container, its own."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = cgroups / controllers
            inner = root / path.strip("/")
            yield root
            while inner != root and root in inner.parents:
                yield inner
                inner = inner.parent


def _file_bytes(path: pathlib.Path) -> int:
    try:
        fields = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    names = ("inactive_file", "active_file")
    return sum(int(fields.get(f"total_{name}", fields.get(name, 0))) for name in names)


def _own_rests(proc: pathlib.Path) -> Iterator[int]:
    for which, field in _LIMITS:
        limit, _ = resource.getrlimit(which)
        if limit == resource.RLIM_INFINITY or not sys.platform.startswith("linux"):
            continue
        try:
            yield limit - int((proc / "statm").read_text().split()[field]) * _PAGE
        except (OSError, ValueError, IndexError):
            continue


def _number(path: pathlib.Path) -> int | None:
    """The number in a file; None for no file, and for `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
