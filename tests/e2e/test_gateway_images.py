"""Stock clients show images to a model that runs here; what cannot be shown is a 400 with the remedy."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from gateway_support import Live, live, model_service
from image_models import Seeing, encoded, picture, seeing
from native_support import ROW_BY_ROW
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.application.services import Services
from pentad.model.loading import open_model

RED, GREEN = encoded(picture(200, 100, 1)), encoded(picture(200, 100, 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return seeing(tmp_path_factory.mktemp("seeing"), kind="smolvlm")


@pytest.fixture
def server(model: Seeing) -> Iterator[Live]:
    settings = EngineSettings(kv_bytes=16 << 20, kernels=ROW_BY_ROW, check_invariants=True)
    backend = local_backend(open_model(model.folder, name="seer"), settings)
    with live(Services(models=model_service(backend, name="seer"))) as running:
        yield running


def url(data: bytes, type: str = "image/png") -> str:
    return f"data:{type};base64,{base64.b64encode(data).decode()}"


def chat(server: Live, *content: str | bytes, **more: Any) -> Any:
    parts: list[Any] = [
        {"type": "text", "text": c}
        if isinstance(c, str)
        else {"type": "image_url", "image_url": {"url": url(c)}}
        for c in content
    ]
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="seer",
            messages=[{"role": "user", "content": parts}],
            max_tokens=4,
            temperature=0,
            **more,
        )
        return list(answer) if "stream" in more else answer


def cached(answer: Any) -> int:
    return int(answer.usage.prompt_tokens_details.cached_tokens)


@pytest.mark.row("fut-mm-process", "mechanism")
def test_every_stock_client_shows_an_image_to_the_model(server: Live, model: Seeing) -> None:
    expected = len(model.inputs("Look:", picture(200, 100, 1), "What?")["input_ids"][0])
    answer = chat(server, "Look:", RED, "What?")
    assert answer.usage.prompt_tokens == expected
    text = answer.choices[0].message.content
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        response = client.responses.create(
            model="seer",
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Look:"},
                        {"type": "input_image", "image_url": url(RED), "detail": "auto"},
                        {"type": "input_text", "text": "What?"},
                    ],
                }
            ],
            max_output_tokens=4,
            temperature=0,
        )
    assert response.output_text == text
    assert response.usage is not None
    assert response.usage.input_tokens == expected
    source: Any = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(RED).decode()}
    blocks: list[Any] = [
        {"type": "text", "text": "Look:"},
        {"type": "image", "source": source},
        {"type": "text", "text": "What?"},
    ]
    with Anthropic(base_url=server.url, api_key="unused", max_retries=0) as other:
        turn: Any = [{"role": "user", "content": blocks}]
        message = other.messages.create(
            model="seer", max_tokens=4, messages=turn, extra_body={"temperature": 0}
        )
        assert other.messages.count_tokens(model="seer", messages=turn).input_tokens == expected
    assert "".join(block.text for block in message.content if block.type == "text") == text


def test_stock_clients_upload_an_image_once_and_name_it(server: Live) -> None:
    expected = chat(server, RED, "What?")
    text, tokens = expected.choices[0].message.content, expected.usage.prompt_tokens
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        file = client.files.create(file=("red.png", RED), purpose="vision")
        assert [one.id for one in client.files.list()] == [file.id]
        content: Any = [{"type": "input_image", "file_id": file.id, "detail": "auto"}]
        content.append({"type": "input_text", "text": "What?"})
        response = client.responses.create(
            model="seer", input=[{"role": "user", "content": content}], max_output_tokens=4, temperature=0
        )
        assert response.output_text == text
        assert response.usage is not None
        assert response.usage.input_tokens == tokens
        assert client.files.delete(file.id).deleted
        assert list(client.files.list()) == []
    with Anthropic(base_url=server.url, api_key="unused", max_retries=0) as other:
        upload = other.beta.files.upload(file=("red.png", RED, "image/png"))
        assert (upload.type, upload.mime_type, upload.size_bytes) == ("file", "image/png", len(RED))
        blocks: Any = [{"type": "image", "source": {"type": "file", "file_id": upload.id}}]
        blocks.append({"type": "text", "text": "What?"})
        message = other.beta.messages.create(
            model="seer",
            max_tokens=4,
            messages=[{"role": "user", "content": blocks}],
            extra_body={"temperature": 0},
        )
        assert "".join(b.text for b in message.content if b.type == "text") == text
        assert other.beta.files.delete(upload.id).type == "file_deleted"


def test_the_same_image_is_a_prefix_hit_and_another_is_none(server: Live) -> None:
    assert cached(chat(server, "Look:", RED, "What?")) == 0
    again = chat(server, "Look:", RED, "And now?")
    assert cached(again) >= again.usage.prompt_tokens - 48  # all but what follows the image
    other = chat(server, "Look:", GREEN, "What?")
    assert other.usage.prompt_tokens == again.usage.prompt_tokens - 3
    assert cached(other) < 32  # the beginning alone: equal tokens, other pixels


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (RED[: len(RED) // 2], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "cannot be decoded"),
        (encoded(picture(20, 20), "GIF"), "image/jpeg, image/png, image/webp"),
    ],
)
def test_an_image_that_cannot_be_decoded_is_a_400(server: Live, data: bytes, words: str) -> None:
    type = "image/gif" if data.startswith(b"GIF") else "image/png"
    content = [{"type": "image_url", "image_url": {"url": url(data, type)}}]
    body = {"model": "seer", "messages": [{"role": "user", "content": content}]}
    refused = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=30)
    assert refused.status_code == 400
    assert words in refused.json()["error"]["message"]


def test_a_stream_of_an_image_is_its_plain_answer(server: Live) -> None:
    plain = chat(server, RED, "What?", seed=1)
    chunks = chat(server, RED, "What?", seed=1, stream=True)
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == plain.choices[0].message.content


def test_too_many_images_for_the_context_are_a_400(server: Live) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        chat(server, *[encoded(picture(200, 200, i)) for i in range(30)])
