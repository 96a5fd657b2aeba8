"""cgroup: one control group per snippet, which bounds the memory and processes of all together."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import uuid
from collections.abc import AsyncIterator, Mapping

_ROOT = pathlib.Path("/sys/fs/cgroup")
_OWN = pathlib.Path("/proc/self/cgroup")
_TRIES, _BETWEEN_S = 200, 0.005
"""The processes of a killed snippet may take a moment to be gone."""


@contextlib.asynccontextmanager
async def cgroup(
    memory_bytes: int, processes: int, *, root: pathlib.Path = _ROOT, own: pathlib.Path = _OWN
) -> AsyncIterator[tuple[str, ...]]:
    """The files that a process writes its id to in order to be bounded; none where we may make no group.

    Version 2 of the interface needs a group that passes `memory` and `pids` on to its children, which
    service managers and container runtimes give; version 1 a writable hierarchy of each.
    """
    groups = _made(memory_bytes, processes, root, own)
    try:
        yield tuple(str(group / "cgroup.procs") for group in groups)
    finally:
        for _ in range(_TRIES):
            groups = [group for group in groups if not _gone(group)]
            if not groups:
                break
            await asyncio.sleep(_BETWEEN_S)


def _gone(group: pathlib.Path) -> bool:
    """Removes the group; False while a process is left in it."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _made(memory_bytes: int, processes: int, root: pathlib.Path, own: pathlib.Path) -> list[pathlib.Path]:
    name, made = f"pentad-{uuid.uuid4().hex[:12]}", []
    try:
        for parent, limits in _places(memory_bytes, processes, root, own):
            (parent / name).mkdir()
            made.append(parent / name)
            for file, value in limits.items():
                if (parent / name / file).exists():
                    (parent / name / file).write_text(str(value))
    except OSError:
        for group in made:
            with contextlib.suppress(OSError):
                group.rmdir()
        return []
    return made


def _places(
    memory_bytes: int, processes: int, root: pathlib.Path, own: pathlib.Path
) -> list[tuple[pathlib.Path, Mapping[str, int]]]:
    """Where groups are made, with the limits to write there. Raises OSError where there is no place."""
    ours = dict(line.split(":", 2)[1:] for line in own.read_text().splitlines())
    if (root / "cgroup.controllers").exists():
        limits = {"memory.max": memory_bytes, "memory.swap.max": 0, "pids.max": processes}
        place = root / ours[""].lstrip("/")
        for each in (place, *place.parents):
            passed_on = (each / "cgroup.subtree_control").read_text().split()
            if {"memory", "pids"} <= set(passed_on):
                return [(each, limits)]
        raise FileNotFoundError(place)
    written = {"memory": {"memory.limit_in_bytes": memory_bytes}, "pids": {"pids.max": processes}}
    return [(root / name / ours.get(name, "/").lstrip("/"), limits) for name, limits in written.items()]
