"""A server under a limit of memory: it refuses what memory will not do for, lives, and serves on."""

from __future__ import annotations

import pathlib
import resource
import sys
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
            size = psutil.Process(pid).memory_info().vms
            for spare in (100 * MIB, 40 * MIB):
                resource.prlimit(pid, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))
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
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert {status for status, _ in pool.map(ask, range(2))} == {200}
            assert client.get("/readyz").status_code == 200
        assert server.stop() == 0
