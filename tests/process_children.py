"""Programs of tests/slow as fresh processes: to their end, beside one another, or under a cap of memory."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

HELPERS = pathlib.Path(__file__).parent
_GROUPS = pathlib.Path("/sys/fs/cgroup")
TIMEOUT_S = 300


def child(
    program: str, *arguments: object, group: MemoryGroup | None = None, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """The JSON line that it prints. Raises CalledProcessError when it fails or is killed for memory."""
    done = subprocess.run(
        _command(program, arguments, group),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=timeout_s,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def held(program: str, *arguments: object) -> Iterator[dict[str, Any]]:
    """The JSON line of a program that then waits until its input ends."""
    with subprocess.Popen(
        _command(program, arguments, None),
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


class MemoryGroup:
    """A control group below this process's own, with a cap on its memory, pages of files included."""

    def __init__(self, folder: pathlib.Path, names: tuple[str, str]) -> None:
        self.folder = folder
        self._peak, self._refused = names

    @property
    def peak_bytes(self) -> int:
        return int((self.folder / self._peak).read_text())

    @property
    def reclaims(self) -> int:
        """How often a page was wanted while the cap was reached."""
        text = (self.folder / self._refused).read_text()
        if self._refused == "memory.failcnt":
            return int(text)
        return int(dict(line.split() for line in text.splitlines())["max"])


@contextlib.contextmanager
def memory_group(cap_bytes: int) -> Iterator[MemoryGroup]:
    """Skips where the system lets us make none (it needs Linux, and mostly root)."""
    try:
        own = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        pytest.skip("this system has no control groups")
    paths = {kinds: path for _, kinds, path in (line.split(":", 2) for line in own)}
    if "memory" in paths:
        parent, limit = _GROUPS / "memory" / paths["memory"].strip("/"), "memory.limit_in_bytes"
        names = ("memory.max_usage_in_bytes", "memory.failcnt")
    else:
        parent, limit = _GROUPS / paths.get("", "/").strip("/"), "memory.max"
        names = ("memory.peak", "memory.events")
    folder = parent / f"pentad-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            (folder / limit).write_text(str(cap_bytes))
        except OSError as error:
            pytest.skip(f"a control group's memory cannot be capped here: {error}")
        yield MemoryGroup(folder, names)
    finally:
        folder.rmdir()


def forget_file(path: pathlib.Path) -> None:
    """Drops a file from the system's cache, so that who reads it next is charged for its pages."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _command(program: str, arguments: tuple[object, ...], group: MemoryGroup | None) -> list[str]:
    command = [sys.executable, str(HELPERS / "slow" / program), *map(str, arguments)]
    if group is None:
        return command
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.folder / "cgroup.procs"), *command]


def _environment() -> dict[str, str]:
    path = f"{HELPERS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
