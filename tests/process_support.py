"""The `pentad` program as a process of its own, on a home that holds the test models."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pentad.model.store import ModelStore

PENTAD = pathlib.Path(sys.executable).parent / "pentad"
START_S = 120.0


def home_with(folder: pathlib.Path, models: Mapping[str, pathlib.Path]) -> pathlib.Path:
    """A home whose store knows these files by these names, without a copy."""
    store = ModelStore(folder)
    for name, path in models.items():
        store.pull(str(path), name=name)
    return folder


def environment(home: pathlib.Path) -> dict[str, str]:
    """Our environment without any setting of the person who runs the tests, and with this home."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PENTAD_")}
    return kept | {"PENTAD_HOME": str(home), "PATH": f"{PENTAD.parent}:{os.environ['PATH']}"}


def pentad(
    home: pathlib.Path, *arguments: str, timeout_s: float = 300, folder: pathlib.Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end, in `folder` if one is given."""
    return subprocess.run(
        [PENTAD, *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def started(home: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    """The program at work, as a person's shell starts it: Ctrl-C reaches it."""
    return subprocess.Popen(
        [PENTAD, *arguments],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@dataclass(frozen=True, kw_only=True)
class Server:
    """A serving process."""

    url: str
    ready_s: float
    """From the start of the process to its first ready answer."""
    process: subprocess.Popen[str]
    said: str
    """What it wrote to standard error until it was ready."""

    def stop(self) -> int:
        """Sends SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def serving(home: pathlib.Path, *arguments: str) -> Iterator[Server]:
    """`pentad serve` on a free port, from when it says that it answers."""
    began = time.monotonic()
    process = subprocess.Popen(
        [PENTAD, "serve", "--port", "0", *arguments],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    said: list[str] = []
    assert process.stderr is not None
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"API +(http://\S+)/v1", line):
                watchdog.cancel()
                ready_s = time.monotonic() - began
                drain = threading.Thread(target=process.stderr.read, daemon=True)
                drain.start()
                yield Server(url=found[1], ready_s=ready_s, process=process, said="".join(said))
                break
        else:
            raise AssertionError(f"pentad serve ended with {process.wait()}: {''.join(said)}")
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)
        process.stderr.close()
