"""Servers to put a load on: our own, llama.cpp's, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from pentad.application.bench import facts
from pentad.application.bench.peers.base import INSTALL_HINT, folder
from pentad.errors import BackendFailed, InvalidRequest, Unavailable

_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where requests go."""

    name: str
    base_url: str
    """Up to and including /v1."""
    model: str
    pid: int | None = None
    """Of its process, where we started it."""
    api_key: str | None = None

    def plan(self, runs: Sequence[dict[str, Any]], *, concurrency: int, deadline_s: float) -> dict[str, Any]:
        """What the client plays on it."""
        url = urlsplit(self.base_url)
        return {
            "host": url.hostname,
            "port": url.port or 80,
            "path": f"{url.path.rstrip('/')}/chat/completions",
            "headers": [f"Authorization: Bearer {self.api_key}"] if self.api_key else [],
            "body": {
                "model": self.model,
                "stream": True,
                "stream_options": {"include_usage": True},
                "temperature": 0,
                "ignore_eos": True,
            },
            "runs": list(runs),
            "concurrency": concurrency,
            "deadline_s": deadline_s,
        }

    def peak_rss_bytes(self) -> int | None:
        """Most memory that its process has held; None where it is not ours to see."""
        return facts.peak_rss_bytes(self.pid) if self.pid else None


def running(url: str, api_key: str | None = None) -> Server:
    """A server that answers already. Raises Unavailable when it does not, InvalidRequest for a bad URL."""
    if urlsplit(url).scheme != "http":
        raise InvalidRequest(f"--url is {url!r}", hint="give it as in http://127.0.0.1:8000/v1", param="url")
    base = url.rstrip("/")
    base = base if base.endswith("/v1") else f"{base}/v1"
    return Server(name=base, base_url=base, model=_served(base, api_key), api_key=api_key)


@contextlib.contextmanager
def pentad(model: str, options: Sequence[str], env: dict[str, str] | None = None) -> Iterator[Server]:
    """`pentad serve` on a free port. Raises Unavailable with its last words when it does not start."""
    code = "from pentad.application.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "serve",
        model,
        "--port",
        "0",
        "--embedding-model",
        "null",
        *options,
    ]
    with _process(command, env=env) as (process, log):
        url = _wait(process, log, lambda text: _first(r"API\s+(http://\S+)", text))
        yield Server(name="pentad", base_url=url, model=_served(url), pid=process.pid)


@contextlib.contextmanager
def llama_server(
    file: pathlib.Path, *, cpu: str, threads: int, slots: int, context: int, name: str
) -> Iterator[Server]:
    """llama.cpp's own server on the same file, with its prompt cache and continuous batching on.

    Args:
        cpu: which build; see peers/llama.py.
        slots: requests at once.
        context: tokens of each.
    """
    home = folder() / "llama.cpp"
    if not (home / "bin" / "llama-server").exists():
        raise Unavailable("llama.cpp is not installed", hint=INSTALL_HINT.format(name="llama.cpp"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(home / "bin" / "llama-server"), "-m", str(file), "-t", str(threads), "-tb", str(threads)]
    command += ["-fa", "on", "-np", str(slots), "-c", str(slots * context), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--no-webui", "-cb"]
    url = f"http://127.0.0.1:{port}"
    with _process(command, at=home / f"cpu-{cpu}") as (process, log):
        _wait(process, log, lambda _: url if _healthy(url) else None)
        yield Server(name=name, base_url=f"{url}/v1", model=_served(f"{url}/v1"), pid=process.pid)


@contextlib.contextmanager
def _process(
    command: Sequence[str], *, at: pathlib.Path | None = None, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], pathlib.Path]]:
    with tempfile.TemporaryDirectory(prefix="pentad-bench-") as folder_name:
        log = pathlib.Path(folder_name) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=at,
                env=os.environ | (env or {}),
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
            )
        try:
            yield process, log
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], log: pathlib.Path, found: Any) -> str:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        text = log.read_text("utf-8", "replace")
        if url := found(text):
            return str(url)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    words = log.read_text("utf-8", "replace").strip().splitlines() or ["no message"]
    raise Unavailable(f"the server did not start: {words[-1][:300]}")


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False


def _served(base: str, api_key: str | None = None) -> str:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx2.get(f"{base}/models", headers=headers, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except httpx2.HTTPError as error:
        raise Unavailable(f"{base!r} does not list its models: {error}", hint="check --url") from error
    except (ValueError, LookupError, TypeError) as error:
        raise BackendFailed(f"{base!r} is no OpenAI-compatible server") from error
