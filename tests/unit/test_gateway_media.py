"""Parts that are no text, from three dialects: what comes down, what is refused, in which words."""

from __future__ import annotations

import base64
import gc
import threading
from typing import Any

import pytest

from gateway_app import call, param_of, scripted_app
from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.gateway.translate.content import MediaReader
from pentad.application.services import Services
from pentad.content import Media
from pentad.execution.backend import Capabilities
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ALL_FORMATS, ScriptedBackend

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
WAV = b"RIFF\x00\x00\x00\x00WAVE" + bytes(20)
PDF = b"%PDF-1.7 report"


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{coded(data)}"


def can(*media: str) -> Capabilities:
    return Capabilities(
        model="scripted",
        context_length=8192,
        formats=ALL_FORMATS,
        logprobs=True,
        media=frozenset(media),  # type: ignore[arg-type]
    )


def seeing(**settings: Any) -> tuple[Any, ScriptedBackend]:
    """A server of a model that takes every kind of part."""
    return scripted_app(capabilities=can("image", "audio", "file"), **settings)


def chat(app: Any, *parts: dict[str, Any], role: str = "user") -> Any:
    body = {"model": "scripted", "messages": [{"role": role, "content": list(parts)}]}
    return call(app, "POST", "/v1/chat/completions", body=body)


def responses(app: Any, *parts: dict[str, Any]) -> Any:
    body = {"model": "scripted", "input": [{"role": "user", "content": list(parts)}]}
    return call(app, "POST", "/v1/responses", body=body)


def anthropic(app: Any, *blocks: dict[str, Any]) -> Any:
    body = {
        "model": "scripted",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": list(blocks)}],
    }
    return call(app, "POST", "/v1/messages", body=body)


def parts(backend: ScriptedBackend) -> list[object]:
    """The last message that came down: texts as they are, media as kind, type and data."""
    message = (backend.requests[-1].messages or ())[-1]
    return [(p.kind, p.media_type, p.data) if isinstance(p, Media) else p for p in message.parts]


TEXT, ASK = {"type": "text", "text": "Look:"}, {"type": "text", "text": "What is it?"}
IN_TEXT, IN_ASK = {**TEXT, "type": "input_text"}, {**ASK, "type": "input_text"}
IMAGE = {"type": "image_url", "image_url": {"url": url("image/png", PNG), "detail": "low"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": coded(WAV), "format": "wav"}}
FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": url("application/pdf", PDF)}}


def test_the_parts_of_a_chat_come_down_in_their_order() -> None:
    app, backend = seeing()
    assert chat(app, TEXT, IMAGE, ASK, AUDIO, FILE).status_code == 200
    assert parts(backend) == [
        "Look:",
        ("image", "image/png", PNG),
        "What is it?",
        ("audio", "audio/wav", WAV),
        ("file", "application/pdf", PDF),
    ]
    image, _, file = backend.requests[0].media
    assert (image.detail, file.name) == ("low", "a.pdf")


def test_responses_and_messages_give_the_same_parts() -> None:
    expected = ["Look:", ("image", "image/png", PNG), "What is it?", ("file", "application/pdf", PDF)]
    app, backend = seeing()
    image = {"type": "input_image", "image_url": url("image/png", PNG)}
    file = {"type": "input_file", "filename": "a.pdf", "file_data": coded(PDF)}
    assert responses(app, IN_TEXT, image, IN_ASK, file).status_code == 200
    assert parts(backend) == expected
    source = {"type": "base64", "media_type": "image/png", "data": coded(PNG)}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": coded(PDF)}
    document = {"type": "document", "source": pdf, "title": "a.pdf"}
    assert anthropic(app, TEXT, {"type": "image", "source": source}, ASK, document).status_code == 200
    assert parts(backend) == expected


def test_a_stored_response_goes_on_with_its_image() -> None:
    app, backend = seeing()
    first = responses(app, {"type": "input_image", "image_url": url("image/png", PNG)}).json()["id"]
    body = {"model": "scripted", "input": "And now?", "previous_response_id": first}
    assert call(app, "POST", "/v1/responses", body=body).status_code == 200
    (image,) = backend.requests[-1].media
    assert image.data == PNG


def test_the_result_of_a_tool_may_be_an_image() -> None:
    app, backend = seeing()
    source = {"type": "base64", "media_type": "image/png", "data": coded(PNG)}
    content = [TEXT, {"type": "image", "source": source}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": content, "is_error": True}
    assert anthropic(app, result).status_code == 200
    assert parts(backend) == ["error: Look:", ("image", "image/png", PNG)]


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        ("text/plain", "Grüße".encode()),
        ("text/csv", b"a,b"),
        ("application/json", b"{}"),
        ("text/markdown", b"# A"),
    ],
)
def test_a_text_file_is_text_for_every_model(media_type: str, data: bytes) -> None:
    app, backend = scripted_app()
    shown = f"<document>\n<title>n</title>\n{data.decode()}\n</document>"
    file = {"file_data": url(media_type, data), "filename": "n"}
    source = {"type": "base64", "media_type": media_type, "data": coded(data)}
    assert chat(app, {"type": "file", "file": file}, ASK).status_code == 200
    assert parts(backend) == [f"{shown}\nWhat is it?"]
    assert responses(app, {"type": "input_file", **file}).status_code == 200
    assert parts(backend) == [shown]
    assert anthropic(app, {"type": "document", "title": "n", "source": source}).status_code == 200
    assert parts(backend) == [shown]


def test_a_model_that_cannot_take_a_part_says_so_and_who_can() -> None:
    backends = {
        "reader": ScriptedBackend([["x"]], model="reader"),
        "seer": ScriptedBackend([["x"]], capabilities=can("image")),
    }
    app = create_app(Services(models=ModelService(backends, router=Fixed())), GatewaySettings())
    body = {"model": "reader", "messages": [{"role": "user", "content": [TEXT, IMAGE]}]}
    refused = call(app, "POST", "/v1/chat/completions", body=body)
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert "model 'reader' takes text, but a message holds the image (image/png, 48 bytes)" in message
    assert "served models that take it: seer" in message
    assert call(app, "POST", "/v1/chat/completions", body={**body, "model": "seer"}).status_code == 200
    alone, _ = scripted_app()
    for sent in (IMAGE, AUDIO, FILE):
        refused = chat(alone, sent)
        assert refused.status_code == 400
        assert "no served model takes it" in refused.json()["error"]["message"]


def test_remote_and_stored_parts_are_refused_with_the_remedy() -> None:
    app, _ = seeing()
    remote = "https://a.example/x.png"
    for sent, param in (
        (chat(app, {"type": "image_url", "image_url": {"url": remote}}), "image_url"),
        (responses(app, {"type": "input_image", "image_url": remote}), "image_url"),
        (responses(app, {"type": "input_file", "file_url": remote}), "file_url"),
    ):
        assert sent.status_code == 400
        assert "nothing is fetched here; send the data as a data: URL" in sent.json()["error"]["message"]
        assert str(param_of(sent)).endswith(f"content[0].{param}")
    source = {"type": "url", "url": remote}
    assert (
        "nothing is fetched" in anthropic(app, {"type": "image", "source": source}).json()["error"]["message"]
    )
    stored = chat(app, {"type": "file", "file": {"file_id": "file-1"}})
    assert "no file 'file-1' here; upload it at /v1/files" in stored.json()["error"]["message"]
    kept = anthropic(app, {"type": "image", "source": {"type": "file", "file_id": "f"}})
    assert "source.file_id: no file 'f' here" in kept.json()["error"]["message"]
    assert stored.status_code == kept.status_code == 400


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("data:image/png;base64,!!!", "is not valid base64"),
        ("data:image/png,raw", "is no data: URL in base64"),
        (url("image/jpeg", PNG), "said to be image/jpeg, its bytes are image/png"),
        (url("image/png", b"<svg/>"), "of no type that is known"),
        (url("text/html", b"<p>"), "of no type that is known"),
    ],
)
def test_data_that_are_not_what_they_say_are_refused(value: str, words: str) -> None:
    app, backend = seeing()
    refused = chat(app, {"type": "image_url", "image_url": {"url": value}})
    assert refused.status_code == 400
    assert words in refused.json()["error"]["message"]
    assert param_of(refused) == "messages[0].content[0].image_url"
    assert not backend.requests


@pytest.mark.row("ml-gemini", "mechanism", claims=(2,))
def test_parts_beyond_the_limits_are_refused_before_they_are_decoded() -> None:
    app, _ = seeing(max_part_bytes=100, max_parts_bytes=150)
    big = chat(app, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "!" * 400}})
    assert big.status_code == 413
    assert "a part may hold 100; send less, or raise --max-part-bytes" in big.json()["error"]["message"]
    several = chat(app, IMAGE, IMAGE, IMAGE, IMAGE)
    assert several.status_code == 413
    assert "--max-parts-bytes" in several.json()["error"]["message"]
    assert chat(app, IMAGE, IMAGE).status_code == 200
    app, _ = seeing(max_parts=2)
    many = chat(app, IMAGE, IMAGE, IMAGE)
    assert many.status_code == 400
    assert "may have 2; send fewer, or raise --max-parts" in many.json()["error"]["message"]


def test_only_users_and_tools_send_parts() -> None:
    app, _ = seeing()
    refused = chat(app, IMAGE, role="system")
    assert refused.status_code == 400
    assert "may hold text only" in refused.json()["error"]["message"]


def test_the_memory_of_parts_is_given_back() -> None:
    app, backend = seeing()
    for _ in range(3):
        assert chat(app, IMAGE).status_code == 200
    backend.requests.clear()
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Media and one.data == PNG]


def test_models_say_which_parts_they_take() -> None:
    app, _ = scripted_app(capabilities=can("image"))
    (card,) = call(app, "GET", "/v1/models").json()["data"]
    assert card["capabilities"]["media"] == ["image"]


def test_large_parts_are_decoded_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    coded_here = MediaReader.coded

    def noted(self: MediaReader, *args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name.partition("_")[0])
        return coded_here(self, *args, **options)

    monkeypatch.setattr(MediaReader, "coded", noted)
    app, _ = seeing()
    big = {"type": "image_url", "image_url": {"url": url("image/png", PNG + bytes(100_000))}}
    source = {"type": "base64", "media_type": "image/png", "data": coded(PNG + bytes(100_000))}
    assert chat(app, big).status_code == 200
    image = {"type": "input_image", "image_url": url("image/png", PNG + bytes(100_000))}
    assert responses(app, image).status_code == 200
    assert anthropic(app, {"type": "image", "source": source}).status_code == 200
    assert threads == ["pentad-large-texts"] * 3
    assert chat(app, IMAGE).status_code == 200
    assert threads[3:] == ["MainThread"]
