"""A real server under pressure: one tenant takes all it can get, or a hundred hostile bodies come at once.

nice .venv/bin/pytest -m slow tests/slow/test_server_pressure.py

Each outcome becomes a line of benchmarks/results/server-pressure.jsonl.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import psutil
import pytest

from hostile_client import say
from process_support import Server, home_with, serving

ROOT = pathlib.Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "server-pressure.jsonl"
MODEL = "smollm2-135m"
CHATS = 8
ROUNDS = 1
WITHHELD_S = 40.0
"""Until a body that was withheld from the start has surely been answered 408, which takes 30 s."""
MB = 10**6

pytestmark = pytest.mark.slow


def recorded(benchmark: str, **values: Any) -> None:
    """Appends what was found, with commit and machine."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    line = {
        "benchmark": benchmark,
        **values,
        "load_average": psutil.getloadavg()[0],
        "commit": git.stdout.strip()[:12],
        "machine": f"{platform.machine()} {psutil.cpu_count()} cores",
    }
    with RESULTS.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line))


def chat_s(url: str, key: str, content: str = "Name three colours of the sea.") -> float:
    """Seconds of one chat."""
    body = {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 64,
        "ignore_eos": True,
        "seed": 1,
    }
    # Making a client reads the machine's certificates, which takes as long as some tokens.
    with httpx2.Client(base_url=url, headers={"x-api-key": key}, timeout=300) as client:
        began = time.perf_counter()
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return time.perf_counter() - began


@contextlib.contextmanager
def pressed(url: str, key: str) -> Iterator[dict[str, int]]:
    """While another tenant takes all it can get; afterwards, what it got."""
    program = ROOT / "tests" / "pressure_client.py"
    process = subprocess.Popen(
        [sys.executable, program, url, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    got: dict[str, int] = {}
    began = time.monotonic()
    try:
        time.sleep(8)
        yield got
        time.sleep(max(0.0, WITHHELD_S - (time.monotonic() - began)))
    finally:
        out, _ = process.communicate(timeout=120)
        got |= json.loads(out)


def test_a_greedy_tenant_slows_another_by_at_most_twice(
    smollm2_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    home = home_with(tmp_path / "home", {MODEL: smollm2_path})
    keys = ("--api-key", "ann:one", "--api-key", "bob:two", "--data-home", str(tmp_path / "data"))
    alone: list[float] = []
    beside: list[float] = []
    got: Counter[str] = Counter()
    with serving(home, MODEL, "--embedding-model", "null", *keys) as server:
        chat_s(server.url, "two")
        for _ in range(ROUNDS):
            alone += [chat_s(server.url, "two") for _ in range(CHATS)]
            with pressed(server.url, "one") as taken:
                beside += [chat_s(server.url, "two") for _ in range(CHATS)]
            got.update(taken)
            idle(server.url, "two")
    ratio = statistics.median(beside) / statistics.median(alone)
    recorded(
        "greedy tenant",
        alone_s=statistics.median(alone),
        beside_s=statistics.median(beside),
        beside_worst_s=max(beside),
        ratio=ratio,
        mean_ratio=statistics.mean(beside) / statistics.mean(alone),
        greedy_got=dict(got),
    )
    assert got["chats 200"] > 0
    assert got["withheld 408"] > 0
    assert ratio <= 2


def idle(url: str, key: str) -> None:
    """Waits until nothing is running any more."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = httpx2.get(f"{url}/metrics", headers={"x-api-key": key}, timeout=30).text
        running = re.findall(r"^pentad_engine_running\{.*\} (\S+)$", text, re.MULTILINE)
        if running and not any(map(float, running)):
            return
        time.sleep(0.5)
    raise AssertionError("the server did not come to rest")


# Hostile bodies


class Watch(threading.Thread):
    """Adds up the memory of the server's processes, while a program of its own asks /livez all the time."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(server.process.pid)
        self._asker = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "livez_client.py", server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ended = threading.Event()
        self.worst_s = 0.0
        self.asked = 0
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, self.memory())

    def memory(self) -> int:
        """Resident bytes of the server and its children."""
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def stop(self) -> None:
        """Ends it."""
        self._ended.set()
        self.join(60)
        out, _ = self._asker.communicate(timeout=60)
        found = json.loads(out)
        self.worst_s, self.asked = found["worst_s"], found["asked"]


def test_a_hundred_hostile_bodies_take_little_memory_and_give_it_back(
    smollm2_path: pathlib.Path, minilm_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    home = home_with(tmp_path / "home", {MODEL: smollm2_path, "minilm": minilm_path})
    statuses: Counter[int] = Counter()
    with serving(home, MODEL, "--data-home", str(tmp_path / "data"), "--kv-bytes", "96MiB") as server:
        warm(server.url)
        # All of a small pool is in use before: what is looked for is what is kept beside the prefix cache.
        chat_s(server.url, "", "word " * 4000)
        watch = Watch(server)
        before = watch.memory()
        watch.start()
        began = time.monotonic()

        # In a process of its own, behind the server: what is measured is the server, not its clients.
        program = ROOT / "tests" / "hostile_client.py"
        clients = subprocess.run(
            [sys.executable, program, server.url], stdout=subprocess.PIPE, text=True, timeout=600, check=True
        )
        statuses.update(json.loads(clients.stdout))
        seconds = time.monotonic() - began
        peak = watch.peak_bytes
        deadline = time.monotonic() + 30
        while watch.memory() - before > 50 * MB and time.monotonic() < deadline:
            time.sleep(0.5)
        watch.stop()
        after = watch.memory()
        assert chat_s(server.url, "") < 60
    recorded(
        "hostile bodies",
        seconds=seconds,
        statuses={str(status): count for status, count in sorted(statuses.items())},
        grown_mb=(peak - before) / MB,
        left_mb=(after - before) / MB,
        livez_worst_ms=1000 * watch.worst_s,
        livez_asked=watch.asked,
    )
    assert statuses.total() == 100
    assert not [status for status in statuses if status >= 500 and status != 503]
    assert peak - before < 500 * MB
    assert after - before < 50 * MB
    assert watch.worst_s < 0.25


def warm(url: str) -> None:
    """Everything once, so that what is made on first use is there."""
    chat_s(url, "")
    format = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "response_format": format}
    for path, more in (
        ("/v1/chat/completions", body),
        ("/v1/embeddings", {"input": "hi"}),
        # Blocks of the KV cache, whose memory is set aside, are touched by as many choices as there will be.
        ("/v1/chat/completions", {**body, "n": 128}),
        # Grammars of this size are compiled by processes that then stay.
        ("/v1/chat/completions", {**say("hi"), "structured_outputs": {"regex": "(a|b){2000}"}}),
        ("/v1/chat/completions", {**say("hi"), "structured_outputs": {"regex": "(a|b){2100}"}}),
    ):
        assert httpx2.post(f"{url}{path}", json=more, timeout=120).status_code == 200
