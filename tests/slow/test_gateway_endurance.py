"""Ten thousand requests of mixed lengths: the server's memory stays where it was, and no block is lost."""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import Callable

import httpx2
import numpy as np
import psutil
import pytest

from gateway_support import eventually
from process_support import home_with, serving

pytestmark = pytest.mark.slow

REQUESTS, WARM_REQUESTS, AT_ONCE = 10_000, 3_000, 16
SAMPLE_EVERY = 100
MOST_GROWTH_BYTES = 1 << 20
"""Over all requests behind the warm ones: a hundred bytes each, a third of what the shortest answer is."""
WORDS = ["river", "stone", "carry", "window", "seven", "blue", "market", "listen", "garden", "early"]


def body(draw: random.Random) -> dict[str, object]:
    """A chat, streamed or not: new or begun like others, of 20 to 700 tokens, with an answer of 1 to 16."""
    words = draw.choices(WORDS, k=int(2 ** draw.uniform(1, 9)))
    beginning = "You are brief. " * draw.choice([0, 0, 20])
    return {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": beginning + " ".join(words)}],
        "max_tokens": draw.randint(1, 16),
        "temperature": draw.choice([0, 1]),
        "stream": draw.random() < 0.5,
    }


def resident_bytes(pid: int) -> int:
    """Of the server and its engine's process."""
    server = psutil.Process(pid)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


async def play(url: str, pid: int) -> list[int]:
    """Sends all requests; the server's resident bytes after every `SAMPLE_EVERY` of them."""
    draw, samples = random.Random(7), []
    bodies = [body(draw) for _ in range(REQUESTS)]
    done = 0

    async def work(client: httpx2.AsyncClient) -> None:
        nonlocal done
        while bodies:
            response = await client.post(f"{url}/v1/chat/completions", json=bodies.pop())
            assert response.status_code == 200, response.text
            assert "error" not in response.text[:50]
            done += 1
            if done % SAMPLE_EVERY == 0:
                samples.append(resident_bytes(pid))

    async with httpx2.AsyncClient(timeout=120) as client:
        await asyncio.gather(*(work(client) for _ in range(AT_ONCE)))
    return samples


def test_memory_does_not_grow_over_ten_thousand_requests(
    tmp_path: pathlib.Path, smollm2_path: pathlib.Path, record_property: Callable[[str, object], None]
) -> None:
    home = home_with(tmp_path, {"smollm2-135m": smollm2_path})
    # A cache that the warm requests fill, since its memory is taken as blocks come into use.
    with serving(home, "smollm2-135m", "--embedding-model", "null", "--kv-bytes", "64MiB") as server:
        samples = asyncio.run(play(server.url, server.process.pid))

        def gauge(name: str) -> float:
            lines = httpx2.get(f"{server.url}/metrics").text.splitlines()
            (value,) = (line.rsplit(" ", 1)[1] for line in lines if line.startswith(name))
            return float(value)

        eventually(lambda: gauge("pentad_engine_kv_blocks_held{") == 0, within_s=10)
        assert gauge("pentad_engine_requests_failed_total") == 0
        assert server.stop() == 0
    warm = np.array(samples[WARM_REQUESTS // SAMPLE_EVERY :], float)
    per_sample = np.polyfit(np.arange(len(warm)), warm, 1)[0]
    growth = float(per_sample * len(warm))
    record_property("rss_bytes", {"warm": warm[0], "end": warm[-1], "growth_by_slope": round(growth)})
    every_thousand = ", ".join(f"{rss / 2**20:.2f}" for rss in samples[9::10])
    print(
        f"\nresident MiB every 1,000 requests: {every_thousand}; behind the warm ones {growth / 2**20:+.2f}"
    )
    assert growth < MOST_GROWTH_BYTES
