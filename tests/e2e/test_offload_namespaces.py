"""Edge and cloud in two network namespaces: what of a request crosses the link between them, as captured."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from model_fixtures import tiny_llama_gguf
from process_support import PENTAD, environment, home_with

SECRET = "Zanzibar ledger 4711"
EDGE_IP, CLOUD_IP = "10.213.7.1", "10.213.7.2"
START_S = 120.0
CLOUD = """
import http.server, json
class Far(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        parts = [{"role": "assistant", "content": "far away"}, {}]
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "far"}
        choices = [{"index": 0, "delta": d, "finish_reason": None if d else "stop"} for d in parts]
        told = [json.dumps({**chunk, "choices": [choice]}) for choice in choices]
        lines = "".join(f"data: {line}\\n\\n" for line in [*told, "[DONE]"]).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(lines)))
        self.end_headers()
        self.wfile.write(lines)
    def log_message(self, *_): pass
print("ready", flush=True)
http.server.ThreadingHTTPServer(("10.213.7.2", 8099), Far).serve_forever()
"""
CAPTURE = """
import socket, sys
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
tap.bind((sys.argv[1], 0))
print("ready", flush=True)
with open(sys.argv[2], "ab", buffering=0) as file:
    while True:
        file.write(tap.recv(65535))
"""
ASK = """
import sys, urllib.request, urllib.error
request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), {"content-type": "application/json"})
try:
    print(urllib.request.urlopen(request, timeout=60).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str, str]]:
    """Two namespaces that one link joins: their names, and the edge's end of the link."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip")
    edge, cloud, end = (f"pentad-{what}-{os.getpid()}" for what in ("edge", "cloud", "e"))
    end = f"pe{os.getpid()}"
    if (made := ip("netns", "add", edge)).returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    try:
        steps = (
            f"netns add {cloud}",
            f"link add {end} netns {edge} type veth peer name pc{os.getpid()} netns {cloud}",
            f"-n {edge} addr add {EDGE_IP}/24 dev {end}",
            f"-n {cloud} addr add {CLOUD_IP}/24 dev pc{os.getpid()}",
            f"-n {edge} link set lo up",
            f"-n {edge} link set {end} up",
            f"-n {cloud} link set pc{os.getpid()} up",
        )
        for step in steps:
            if (done := ip(*step.split())).returncode:
                pytest.skip(f"the namespaces cannot be joined here: ip {step}: {done.stderr.strip()}")
        yield edge, cloud, end
    finally:
        ip("netns", "del", edge)
        ip("netns", "del", cloud)


@contextlib.contextmanager
def within(namespace: str, *command: str | pathlib.Path, env: dict[str, str] | None = None) -> Iterator[str]:
    """A process in a namespace, from its first words (which are given) until the end of the block."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    assert process.stdout is not None
    try:
        said, end_s = "", time.monotonic() + START_S
        while "ready" not in said and "API" not in said:
            line = process.stdout.readline()
            assert line, f"{command[0]} ended: {said}"
            assert time.monotonic() < end_s, f"{command[0]} did not start: {said}"
            said += line
        yield said
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()


def content_bytes(capture: pathlib.Path, begin: int) -> bytes:
    """What the link carried since it had carried so many bytes; waits until it is silent."""
    size = -1
    while size != (size := capture.stat().st_size):
        time.sleep(0.3)
    return capture.read_bytes()[begin:]


@pytest.mark.thorough
@pytest.mark.row("fw-edge-cloud", "mechanism")
def test_a_run_labelled_local_sends_no_byte_of_its_content_over_the_link(
    namespaces: tuple[str, str, str], tmp_path: pathlib.Path
) -> None:
    edge, cloud, end = namespaces
    (tmp_path / "tiny.gguf").write_bytes(tiny_llama_gguf())
    home = home_with(tmp_path / "home", {"tiny": tmp_path / "tiny.gguf"})
    settings = tmp_path / "pentad.yaml"
    settings.write_text(
        "models: [tiny]\nembedding_model: null\nengine: {kv_bytes: 16MB, transport: in-process}\n"
        "router: {name: offload, options: {policy: edge-cloud}}\n"
        f"backends: [{{name: far, url: 'http://{CLOUD_IP}:8099/v1', remote: true}}]\n",
        encoding="utf-8",
    )
    capture = tmp_path / "link.bin"
    serve = (PENTAD, "serve", "--config", settings, "--port", "8098")

    def ask(model: str, **pentad: str) -> tuple[str, bytes]:
        """The answer, and what crossed the link for it."""
        begin = len(content_bytes(capture, 0))
        body = {
            "model": model,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": SECRET}],
            "pentad": {"run_id": "r", **pentad},
        }
        done = subprocess.run(
            [
                "ip",
                "netns",
                "exec",
                edge,
                sys.executable,
                "-c",
                ASK,
                "http://127.0.0.1:8098/v1/chat/completions",
            ],
            input=json.dumps(body),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, content_bytes(capture, begin)

    with (
        within(cloud, sys.executable, "-c", CLOUD),
        within(edge, sys.executable, "-c", CAPTURE, end, str(capture)),
        within(edge, *serve, env=environment(home)),
    ):
        answer, crossed = ask("far")
        assert "far away" in answer, answer
        assert SECRET.encode() in crossed  # the capture sees what does cross
        answer, crossed = ask("auto", data_label="local")
        assert '"choices"' in answer, answer
        assert "far away" not in answer
        assert SECRET.encode() not in crossed
        assert CLOUD_IP not in answer
        answer, crossed = ask("far", data_label="local")
        assert "data_label" in answer
        assert "change `data_label`" in answer
        assert SECRET.encode() not in crossed
