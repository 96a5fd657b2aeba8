"""What the gateway itself costs per token, next to a real decode step."""

from __future__ import annotations

import asyncio
import pathlib
import socket
import threading
import time

import pytest

from gateway_support import address, chat_body, head_of, live, model_service, scripted
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.application.services import Services
from pentad.model.loading import open_model

STREAMS = 8
SHARE = 0.03
"""Of a decode step at batch 8: the bar for scheduler and server together."""


def take_streams(url: str, **fields: object) -> float:
    """Takes 8 streams at once, to their ends; the seconds it took."""

    def one() -> None:
        with socket.create_connection(address(url)) as client:
            body = chat_body(stream=True, **fields)
            client.sendall(head_of(url, body, extra="Connection: close\r\n"))
            while client.recv(1 << 16):
                pass

    threads = [threading.Thread(target=one) for _ in range(STREAMS)]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started_s


@pytest.mark.slow
def test_the_gateway_takes_little_of_a_decode_step(smollm2_path: pathlib.Path) -> None:
    words = ["token "] * 4000
    with scripted(words, repeat=True) as server:
        take_streams(server.url)
        per_token_s = take_streams(server.url) / (STREAMS * len(words))
    settings = EngineSettings(kv_bytes=256 << 20, threads=2)
    backend = local_backend(open_model(smollm2_path), settings)
    with live(Services(models=model_service(backend))) as real:
        take_streams(real.url, max_tokens=8, ignore_eos=True)
        before = backend.stats()
        take_streams(real.url, max_tokens=64, ignore_eos=True)
        after = backend.stats()
    asyncio.run(backend.close())
    steps = after["steps_total"] - before["steps_total"]
    step_s = (after["step_seconds_total"] - before["step_seconds_total"]) / steps
    share = per_token_s * STREAMS / step_s
    print(f"\ngateway {per_token_s * 1e6:.1f} us/token, step {step_s * 1e3:.1f} ms, share {share:.2%}")
    assert share < SHARE
