"""Images from stock clients of three dialects, through our server and the one behind it, byte for byte."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from gateway_support import Live, live
from pentad.application.services import Services
from pentad.content import Media
from pentad.execution.backend import Capabilities
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai import OpenAIBackend
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
CODED = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{CODED}"


@contextmanager
def relayed(*, media: frozenset[Any] = frozenset({"image"})) -> Iterator[tuple[Live, ScriptedBackend]]:
    """A server whose model is at another server, and the model there."""
    capabilities = Capabilities(model="seer", context_length=8192, media=frozenset({"image"}))
    seer = ScriptedBackend([["a cat"]], capabilities=capabilities, repeat=True)
    with live(Services(models=ModelService({"seer": seer}, router=Fixed()))) as inner:
        endpoint = Endpoint(base_url=f"{inner.url}/v1", model="seer", remote=False, media=media)
        # No connection outlives its request, and so the server's event loop.
        transport = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_keepalive_connections=0))
        far = OpenAIBackend(endpoint, name="far", transport=transport)
        with live(Services(models=ModelService({"far": far}, router=Fixed()))) as outer:
            yield outer, seer


def seen(seer: ScriptedBackend) -> list[object]:
    """The parts of the one message that came to the model."""
    (message,) = seer.requests[-1].messages or ()
    return [p.data if isinstance(p, Media) else p for p in message.parts]


def test_an_image_reaches_a_model_behind_two_servers_from_every_stock_client() -> None:
    with relayed() as (outer, seer):
        with OpenAI(base_url=f"{outer.url}/v1", api_key="unused", max_retries=0) as client:
            chat = client.chat.completions.create(
                model="far",
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "Look:"},
                            {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
                            {"type": "text", "text": "What is it?"},
                        ],
                    }
                ],
            )
            assert chat.choices[0].message.content == "a cat"
            assert seen(seer) == ["Look:", PNG, "What is it?"]
            assert seer.requests[-1].media[0].detail == "high"
            response = client.responses.create(
                model="far",
                input=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_image", "image_url": URL, "detail": "auto"},
                            {"type": "input_text", "text": "What is it?"},
                        ],
                    }
                ],
            )
            assert response.output_text == "a cat"
            assert seen(seer) == [PNG, "What is it?"]
        with Anthropic(base_url=outer.url, api_key="unused", max_retries=0) as other:
            message = other.messages.create(
                model="far",
                max_tokens=9,
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": CODED},
                            },
                            {"type": "text", "text": "What is it?"},
                        ],
                    }
                ],
            )
            assert message.content[0].text == "a cat"  # type: ignore[union-attr]
            assert seen(seer) == [PNG, "What is it?"]


def test_a_stock_client_is_told_when_the_model_takes_no_image() -> None:
    with relayed(media=frozenset()) as (outer, seer):
        client = OpenAI(base_url=f"{outer.url}/v1", api_key="unused", max_retries=0)
        content: Any = [{"type": "image_url", "image_url": {"url": URL}}]
        with (
            client,
            pytest.raises(openai.BadRequestError, match="'far' takes text, but a message holds the image"),
        ):
            client.chat.completions.create(model="far", messages=[{"role": "user", "content": content}])
        assert not seer.requests
