"""A far text-and-image endpoint is down or slow: a local model that sees goes on with the same request."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from agent_support import run
from evidence.plugin import Measure
from image_models import encoded, picture, seeing
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.content import joined, media
from pentad.execution.backend import NoticeDelta, StreamDone, TextDelta
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai import OpenAIBackend
from pentad.model.loading import open_model
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.model.standby import Standby
from pentad.types import Message, Request, Sampling

AFTER_S = 1.0


async def refuses(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(503, json={"error": {"message": "down"}})


async def hangs(_: httpx2.Request) -> httpx2.Response:
    await asyncio.Event().wait()
    raise AssertionError("nobody wakes it")


@pytest.mark.row("ml-gpt4", "effect", claims=(2,))
def test_a_local_model_that_sees_goes_on_within_two_seconds(
    tmp_path: pathlib.Path, measured: Measure
) -> None:
    """Its weights are random and few, so this holds of the hand-over, not of how fast a large model reads."""
    local = local_backend(
        open_model(seeing(tmp_path / "model").folder), EngineSettings(kv_bytes=64 << 20, kernels="torch")
    )
    image = media("image", "image/png", encoded(picture(90, 60)))
    content, found = joined(["What is this?", image])

    async def begun(far: Callable[[httpx2.Request], Awaitable[httpx2.Response]]) -> float:
        endpoint = Endpoint(
            base_url="http://far.example/v1", model="far", media=frozenset({"image"}), timeout_s=60.0
        )
        models = ModelService(
            {"far": OpenAIBackend(endpoint, transport=httpx2.MockTransport(far)), "near": local},
            router=Fixed(),
            standbys={"far": Standby(model="near", after_s=AFTER_S)},
        )
        request = Request(
            id="r",
            model="far",
            messages=(Message(role="user", content=content, media=found),),
            sampling=Sampling(max_tokens=4, temperature=0.0),
        )
        started_s, first_s, deltas = time.monotonic(), None, []
        async for delta in models.stream(request):
            deltas.append(delta)
            if first_s is None and isinstance(delta, TextDelta):
                first_s = time.monotonic() - started_s
        assert isinstance(deltas[0], NoticeDelta)
        done = deltas[-1]
        assert isinstance(done, StreamDone)
        assert done.usage.decisions[0].chosen == "near"
        assert first_s is not None
        return first_s

    async def both() -> dict[str, float]:
        await begun(refuses)  # what is loaded on first use
        made = {"down": await begun(refuses), "slow": await begun(hangs)}
        await local.close()
        return made

    seconds = run(both(), 120.0)
    print(f"seconds until the local model's first text: {seconds}")
    measured("first text after a refusal", seconds["down"], at_most=2.0, unit="s")
    measured("first text where the far one hangs", seconds["slow"], at_most=2.0, unit="s")
