"""A server under a limit of memory: it refuses what memory will not do for, lives, and serves on."""

from __future__ import annotations

import pathlib
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from process_support import home_with, serving

MIB = 1 << 20
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of another process")


def body(i: int, max_tokens: int = 8) -> dict[str, object]:
    text = f"Number {i}. " + "Tell me of the sea, the hills and the harbour. " * (20 * (i % 3))
    message = {"role": "user", "content": text}
    return {
        "model": "smollm2-135m",
        "messages": [message],
        "max_tokens": max_tokens,
        "logprobs": True,
        "n": 1 + i % 2,
    }


def tree(pid: int) -> list[psutil.Process]:
    """The server and the process of its engine, without what compiles grammars now and then."""
    server = psutil.Process(pid)
    return [server, *(c for c in server.children() if "pentad.application.worker" in c.cmdline())]


def test_under_a_limit_the_server_refuses_with_503_and_lives(
    tmp_path: pathlib.Path, smollm2_path: pathlib.Path
) -> None:
    home = home_with(tmp_path, {"smollm2-135m": smollm2_path})
    options = ("--embedding-model", "null", "--threads", "1")
    with serving(home, *options) as server, httpx2.Client(base_url=server.url, timeout=120) as client:

        def ask(i: int) -> tuple[int, httpx2.Headers]:
            answer = client.post("/v1/chat/completions", json=body(i))
            return answer.status_code, answer.headers

        with ThreadPoolExecutor(8) as pool:
            assert {status for status, _ in pool.map(ask, range(8))} == {200}  # its threads are there now
            pid = server.process.pid
            sizes = {p.pid: p.memory_info().vms for p in tree(pid)}
            assert len(sizes) >= 2, "the server and its engine's process"
            for spare in (100 * MIB, 40 * MIB):
                for each, size in sizes.items():
                    resource.prlimit(each, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))
                time.sleep(0.6)  # until the engine's process has said what is free
                found = list(pool.map(ask, range(16)))
                statuses = [status for status, _ in found]
                print(
                    f"{spare >> 20} MiB to spare: { ({s: statuses.count(s) for s in sorted(set(statuses))}) }"
                )
                assert set(statuses) <= {200, 429, 503}
                assert all("retry-after" in headers for status, headers in found if status != 200)
                assert server.process.poll() is None
                assert client.get("/livez").status_code == 200
            assert set(statuses) == {503}  # less than what is kept free
            for each in sizes:
                resource.prlimit(each, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            time.sleep(0.6)
            assert {p.pid for p in tree(pid)} == sizes.keys(), "nothing was started anew"
            assert {status for status, _ in pool.map(ask, range(2))} == {200}
            assert client.get("/readyz").status_code == 200
        assert server.stop() == 0
