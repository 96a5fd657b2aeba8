"""Prices of the settings file reach the models that they name."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from model_fixtures import tiny_llama_gguf
from pentad.application.config import ModelPrice, RemoteBackend, Settings
from pentad.application.wiring import build
from pentad.execution.backend import Completion
from pentad.model.store import ModelStore
from pentad.types import Request, Sampling

PRICES = (
    ModelPrice(model="tiny", prompt=1, completion=2),
    ModelPrice(model="far", prompt=3, completion=4, cached=0.5),
)


def test_local_and_remote_models_have_the_prices_that_were_set(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(tiny_llama_gguf())
    home = tmp_path / "home"
    ModelStore(home).pull(str(file), name="tiny")
    far = RemoteBackend(name="far", url="http://127.0.0.1:9/v1", vllm_fields=True)
    settings = Settings(home=home, embedding_model=None, models=("tiny",), backends=(far,), prices=PRICES)

    async def run() -> Completion:
        async with build(settings) as services:
            assert services.models.price("").completion == services.models.price("tiny").completion == 2
            assert services.models.price("far").cached == 0.5
            request = Request(id="r", model="tiny", token_ids=(1, 2, 3), sampling=Sampling(max_tokens=4))
            return await services.models.complete(request)

    usage = asyncio.run(run()).usage
    assert usage.cost == pytest.approx((3 * 1 + usage.completion_tokens * 2) / 1e6)
