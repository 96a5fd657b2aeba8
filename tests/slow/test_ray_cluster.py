"""Two raylets on one machine, each with an address of its own: up, drain, a raylet killed, upgrade, down."""

from __future__ import annotations

import contextlib
import json
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import psutil
import pytest

from native_support import ROW_BY_ROW
from process_support import PENTAD, environment, home_with

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is an address on Linux alone"),
]
MODEL = "smollm2-135m"
CLUSTER = """
link: {bytes_per_s: 125e6, latency_s: 1e-4}
devices:
  - {name: left, profile: rtx-4090}
  - {name: right, profile: rtx-4090}
"""


class Raylets:
    """Ray on two addresses of this machine."""

    def __init__(self, folder: pathlib.Path, home: pathlib.Path) -> None:
        pytest.importorskip("ray", reason="pip install 'pentad[ray]'")
        self.folder = folder
        with socket.create_server(("127.0.0.2", 0)) as free:
            self.address = f"127.0.0.2:{free.getsockname()[1]}"
        self.env = environment(home) | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_ADDRESS": self.address,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }
        self.processes: dict[str, list[psutil.Process]] = {}
        port = self.address.rpartition(":")[2]
        self._start("left", "--head", f"--port={port}", "--node-ip-address=127.0.0.2", f"--temp-dir={folder}")
        self._start("right", f"--address={self.address}", "--node-ip-address=127.0.0.3")

    def _start(self, host: str, *options: str) -> None:
        before = {process.pid for process in self._of_ray()}
        shared = ("--num-cpus=1", "--object-store-memory=80000000", "--include-dashboard=false")
        if "--head" not in options:
            shared = shared[:2]
        subprocess.run(
            [
                PENTAD.parent / "ray",
                "start",
                *options,
                *shared,
                "--resources",
                json.dumps({f"pentad_{host}": 1}),
            ],
            env=self.env,
            check=True,
            timeout=180,
            stdout=subprocess.DEVNULL,
        )
        self.processes[host] = [process for process in self._of_ray() if process.pid not in before]

    def _of_ray(self) -> list[psutil.Process]:
        """Ray's processes that know our token."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RAY_AUTH_TOKEN") == self.env["RAY_AUTH_TOKEN"]:
                    found.append(process)
        return found

    def kill(self, host: str) -> None:
        """As a machine that loses its power: the raylet and all that it has started."""
        for process in self.processes.pop(host):
            with contextlib.suppress(psutil.Error):
                for child in [process, *process.children(recursive=True)]:
                    child.kill()

    def close(self) -> None:
        for process in self._of_ray():
            with contextlib.suppress(psutil.Error):
                process.kill()


class Up:
    """`pentad up` at work, and the other verbs beside it."""

    def __init__(self, raylets: Raylets, folder: pathlib.Path) -> None:
        self.env, self.raylets = raylets.env, raylets
        self.file, key = folder / "cluster.yaml", folder / "key"
        self.file.write_text(CLUSTER)
        key.write_text(secrets.token_hex(32))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = (
            "--embedding-model",
            "null",
            "--threads",
            "1",
            "--kv-bytes",
            "64MiB",
            "--kernels",
            ROW_BY_ROW,
        )
        self.process = subprocess.Popen(
            [PENTAD, "up", self.file, MODEL, "--key-file", key, "--port", str(port), *options],
            env=self.env,
            stderr=(folder / "up.log").open("w"),
        )
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)
        until_s = time.monotonic() + 300
        while True:
            assert self.process.poll() is None, (folder / "up.log").read_text()
            assert time.monotonic() < until_s, (folder / "up.log").read_text()
            with contextlib.suppress(httpx2.TransportError):
                if self.client.get("/readyz").status_code == 200:
                    return
            time.sleep(0.2)

    def verb(self, *words: str) -> str:
        done = subprocess.run(
            [PENTAD, words[0], self.file, *words[1:]],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def busy(self) -> list[str]:
        """Hosts that run something."""
        return [state["host"] for state in json.loads(self.verb("status", "--json")) if state["processes"]]

    def text(self, act: Callable[[], Any] | None = None) -> str:
        """The greedy answer; `act` is called in its midst."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me of the sea."}]}
        body |= {"max_tokens": 80, "temperature": 0, "stream": True}  # type: ignore[dict-item]
        text, pieces = "", 0
        with self.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                pieces += 1
                if pieces == 20 and act is not None:
                    act()
        assert pieces > 20
        return text


@pytest.fixture
def up(tmp_path: pathlib.Path, smollm2_path: pathlib.Path) -> Iterator[Up]:
    short = pathlib.Path(tempfile.mkdtemp(prefix="pr-"))  # Ray's sockets lie below it, and have short names
    raylets = Raylets(short, home_with(tmp_path / "home", {MODEL: smollm2_path}))
    try:
        made = Up(raylets, tmp_path)
        try:
            yield made
        finally:
            made.client.close()
            if made.process.poll() is None:
                made.process.kill()
            made.process.wait()
    finally:
        raylets.close()
        shutil.rmtree(short, ignore_errors=True)


def test_a_cluster_serves_drains_loses_a_raylet_and_ends(up: Up) -> None:
    """Every answer is the undisturbed one, whatever happens in its midst."""
    undisturbed = up.text()
    assert up.busy() == ["left"]
    started: list[subprocess.Popen[bytes]] = []

    def drain() -> None:
        started.append(subprocess.Popen([PENTAD, "drain", up.file, "left"], env=up.env))

    assert up.text(drain) == undisturbed
    assert started[0].wait(120) == 0
    assert up.busy() == ["right"]
    up.verb("drain", "left", "--undo")
    assert up.text(lambda: up.raylets.kill("right")) == undisturbed
    until_s = time.monotonic() + 120
    while up.busy() != ["left"]:
        assert time.monotonic() < until_s
        time.sleep(1)
    up.verb("upgrade")
    assert up.text() == undisturbed
    up.verb("down")
    assert up.process.wait(120) == 0
    assert not up.busy()
