"""A real PostgreSQL server of one's own, on the loopback, that can be killed and started anew."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

_USER = "pentad"


def programs() -> pathlib.Path | None:
    """The folder of the newest server that is installed; None where there is none."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    at = shutil.which("initdb")
    return pathlib.Path(at).resolve().parent if at else None


class PostgresServer:
    """Runs from `start` to `kill`; what was committed is there again after the next start."""

    def __init__(self, bin: pathlib.Path, folder: pathlib.Path) -> None:
        self._bin, self._folder = bin, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://{_USER}@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "--auth=trust", f"--username={_USER}", "--no-sync", f"--pgdata={self.data}")

    @property
    def data(self) -> pathlib.Path:
        return self._folder / "data"

    def start(self) -> None:
        # A kill of processes loses nothing that the system holds, so nothing needs to reach the disk.
        options = f"-p {self._port} -k {self._folder} -h 127.0.0.1 -c fsync=off -c max_connections=64"
        log = str(self._folder / "log")
        self._run(
            "pg_ctl", "start", "--wait", f"--pgdata={self.data}", f"--options={options}", f"--log={log}"
        )

    def kill(self) -> None:
        """kill -9 of the server and of all its sessions; returns once all are gone."""
        first = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        first.suspend()  # so that it starts no further ones
        family = [*first.children(recursive=True), first]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        gone, left = psutil.wait_procs(family, timeout=20)
        assert not left, f"{len(left)} of {len(gone) + len(left)} processes of the server do not end"

    def stop(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self.data}")

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._bin / program), *words]
        if os.geteuid() == 0:  # the server refuses to be root
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self._folder, timeout=60, check=False
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)


@contextlib.contextmanager
def disturbed(
    server: PostgresServer, seed: int, *, every_s: tuple[float, float] = (0.5, 2.5)
) -> Iterator[Callable[[], int]]:
    """Kills the server in such intervals, and starts it anew; yields what says how often that was.

    Raises behind the block what went wrong with the server meanwhile.
    """
    done, kills = threading.Event(), 0

    def disturb() -> None:
        nonlocal kills
        dice = random.Random(seed)
        while not done.wait(dice.uniform(*every_s)):
            server.kill()
            kills += 1
            done.wait(dice.uniform(0.0, 0.3))
            server.start()

    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        try:
            yield lambda: kills
        finally:
            done.set()
        disturbing.result()


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server that is stopped and removed behind the test; skips where none is installed."""
    bin = programs()
    if bin is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pentad-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    try:
        server = PostgresServer(bin, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
