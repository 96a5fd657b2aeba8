"""Adapters over HTTP as vLLM's clients put and drop them, beside a real model on the native kernels."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator

import httpx2
import numpy as np
import psutil
import pytest

from adapter_files import write, write_adapter
from pentad.application.config import EngineSettings, Settings
from pentad.application.gateway import GatewaySettings
from pentad.model.loading import open_model
from pool_support import Serving, serving

WORKER = (sys.executable, "-m", "pentad.application.worker")
PROMPT = "The three things that matter most are"


@pytest.fixture(scope="module")
def adapters(smollm2_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("adapters")
    files = open_model(smollm2_path)
    for seed, name in enumerate(("a", "b", "c")):
        write_adapter(folder / name, files.spec, seed, only=("q", "v", "down"))
    files.close()
    return folder


@pytest.fixture(scope="module")
def server(
    smollm2_path: pathlib.Path, adapters: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "small.gguf").symlink_to(smollm2_path.resolve())
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        models=(str(folder / "small.gguf"),),
        embedding_model=None,
        engine=EngineSettings(kv_bytes=48 << 20, threads=1),
        server=GatewaySettings(port=0, adapter_folder=str(adapters)),
    )
    with serving(settings, worker=WORKER) as running:
        yield running


@pytest.fixture
def client(server: Serving) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=120) as opened:
        yield opened


def served(client: httpx2.Client) -> set[str]:
    """What can be named, but for the names that stand for a choice."""
    cards = client.get("/v1/models").json()["data"]
    return {card["id"] for card in cards if not card["id"].startswith("auto")}


def put(client: httpx2.Client, name: str, path: str, **more: object) -> httpx2.Response:
    return client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path, **more})


def drop(client: httpx2.Client, name: str) -> httpx2.Response:
    return client.post("/v1/unload_lora_adapter", json={"lora_name": name})


def body(model: str) -> dict[str, object]:
    return {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}


def told(client: httpx2.Client, model: str) -> str:
    answer = client.post("/v1/completions", json=body(model))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def all_at_once(url: str, models: list[str]) -> list[str]:
    async def ask() -> list[str]:
        async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
            answers = await asyncio.gather(*(client.post("/v1/completions", json=body(m)) for m in models))
        return [answer.json()["choices"][0]["text"] for answer in answers]

    return asyncio.run(ask())


@pytest.mark.row("het-adapter", "mechanism")
def test_adapters_are_put_asked_together_and_dropped_while_their_model_is_served(
    server: Serving, client: httpx2.Client
) -> None:
    plain = told(client, "small")
    assert put(client, "a", "a").text == "Success: LoRA adapter 'a' added successfully."
    assert put(client, "b", "b", base_model_name="small").status_code == 200
    alone = {name: told(client, name) for name in ("small", "a", "b")}
    assert alone["small"] == plain
    assert len(set(alone.values())) == 3
    models = ["a", "small", "b", "a"]
    assert all_at_once(server.url, models) == [alone[name] for name in models]
    assert served(client) == {"small", "a", "b"}

    # Whoever loads the model again gives it the adapters of now.
    assert client.post("/models/unload", json={"model": "small"}).json() == {"success": True}
    assert told(client, "a") == alone["a"]
    assert server.services.local is not None
    pid = server.services.local.pool.slots["small"].value._loop.pid
    os.kill(pid, signal.SIGKILL)
    assert told(client, "b") == alone["b"]

    assert put(client, "a", "b").status_code == 409
    assert put(client, "a", "b", load_inplace=True).status_code == 200
    assert told(client, "a") == alone["b"]
    assert drop(client, "a").text == "Success: LoRA adapter 'a' removed successfully."
    assert client.post("/v1/completions", json=body("a")).status_code == 404
    assert drop(client, "a").status_code == 404
    assert told(client, "b") == alone["b"]
    assert drop(client, "b").status_code == 200
    assert told(client, "small") == plain


@pytest.mark.row("het-adapter", "mechanism")
def test_a_real_adapter_is_swapped_over_http_within_50_ms(client: httpx2.Client, server: Serving) -> None:
    """Of processor time in gateway, client and worker, so that other work on the machine does not count."""
    assert put(client, "swapped", "a").status_code == 200
    assert server.services.local is not None
    worker = psutil.Process(server.services.local.pool.slots["small"].value._loop.pid)

    def used_s() -> float:
        times = worker.cpu_times()
        return time.process_time() + times.user + times.system

    began_s, paths = used_s(), ("b", "c", "a") * 7
    for path in paths:
        assert put(client, "swapped", path, load_inplace=True).status_code == 200
    each_s = (used_s() - began_s) / len(paths)
    assert drop(client, "swapped").status_code == 200
    assert each_s < 0.05


def test_only_adapters_of_their_folder_that_fit_are_read(
    client: httpx2.Client, adapters: pathlib.Path
) -> None:
    for path in ("../../etc", "/etc"):
        assert put(client, "x", path).status_code == 403
    assert put(client, "x", "nothing").status_code == 400
    assert put(client, "small", "a").status_code == 409
    assert put(client, "x", "a", base_model_name="none").status_code == 404
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    arrays = {
        stem + "A.weight": np.zeros((4, 48), np.float32),
        stem + "B.weight": np.zeros((48, 4), np.float32),
    }
    write(adapters / "wrong", arrays, 4)
    refused = put(client, "x", "wrong")
    assert refused.status_code == 400
    assert "which is (576, 576)" in refused.json()["error"]["message"]
    assert served(client) == {"small"}
