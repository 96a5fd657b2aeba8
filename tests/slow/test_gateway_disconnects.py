"""A thousand clients that leave a real model in the middle of its answer."""

from __future__ import annotations

import asyncio
import pathlib

import httpx2
import pytest

from gateway_support import chat_body, eventually, leave_many, live, model_service
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.application.services import Services
from pentad.model.loading import open_model


@pytest.mark.slow
def test_after_1000_streams_left_early_the_real_engine_holds_nothing_and_answers_right(
    smollm2_path: pathlib.Path,
) -> None:
    fields = {"max_tokens": 24, "temperature": 0, "ignore_eos": True}
    settings = EngineSettings(kv_bytes=64 << 20, check_invariants=True)
    backend = local_backend(open_model(smollm2_path), settings)

    def answer(url: str) -> str:
        response = httpx2.post(f"{url}/v1/chat/completions", content=chat_body(**fields), timeout=60)
        content: str = response.json()["choices"][0]["message"]["content"]
        return content

    with live(Services(models=model_service(backend))) as server:
        before = answer(server.url)
        asyncio.run(leave_many(server.url, 1000, fields))
        eventually(lambda: server.gateway.load.active == 0, within_s=30)
        eventually(lambda: backend.stats()["kv_blocks_held"] == 0, within_s=30)
        assert backend.stats()["requests_cancelled_total"] > 300
        assert backend.check() is None
        assert answer(server.url) == before
    asyncio.run(backend.close())
