"""A session over a restart of the server: its prompt comes from the mapped file, or is computed again."""

from __future__ import annotations

import pathlib
import signal
import time
from typing import Any

import httpx2
import pytest

from evidence.plugin import Measure
from process_support import Server, home_with, serving

pytestmark = pytest.mark.slow

PROMPT = [1000 + 37 * i % 30_000 for i in range(640)]
LONGER = [*PROMPT, *(2000 + 11 * i for i in range(48))]
BLOCK_BYTES = 30 * 3 * 64 * 2 * 2 * 16
"""Of SmolLM2: layers, heads, their size, keys and values, bytes of a number, tokens."""
FLAGS = ("smollm2-135m", "--embedding-model", "null", "--kv-bytes", "128MiB", "--kv-store-bytes", "256MiB")


def ask(server: Server, prompt: list[int], **more: Any) -> tuple[str, int]:
    """The answer, and how many tokens of the prompt came from a cache."""
    body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True,
            "pentad": {"run_id": "session", "hints": {"next": "tool"}}} | more  # fmt: skip
    found = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=120)
    found.raise_for_status()
    answer = found.json()
    return answer["choices"][0]["text"], answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def end(server: Server, how: str) -> None:
    time.sleep(1.0)  # what was computed is stored behind the answer
    if how == "stop":
        server.stop()
        return
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(timeout=30)
    time.sleep(2.0)  # the worker sees that its server is gone, and gives the file back


@pytest.mark.row("ag-kv-persist", "effect")
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_session_goes_on_with_its_prompt_from_the_file_and_damaged_blocks_are_computed_again(
    how: str, smollm2_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    home = home_with(tmp_path / "home", {"smollm2-135m": smollm2_path})
    with serving(home, *FLAGS) as server:
        ask(server, PROMPT)
        end(server, how)
    with serving(home, *FLAGS) as server:
        again, cached = ask(server, LONGER)
        plain, none = ask(server, LONGER, cache_salt="computed anew")
        end(server, "stop")
    assert (again, none) == (plain, 0)
    measured(f"prompt tokens from the file behind a {how}", cached / len(LONGER), at_least=0.85)
    (file,) = home.rglob("*.kv")
    data = bytearray(file.read_bytes())
    begin = len(data) % BLOCK_BYTES
    for place in range(begin + 1000, len(data), BLOCK_BYTES):
        data[place] ^= 4
    file.write_bytes(data)
    with serving(home, *FLAGS) as server:
        damaged, cached = ask(server, LONGER)
    assert damaged == plain
    assert cached == 0
