"""A model's own sampling defaults: read from its files, kept to where a request says nothing, and told."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import httpx2
import pytest

import model_fixtures as make
from gateway_app import call, chat, scripted_app
from pentad.application.cli.talk import Talk
from pentad.execution.backend import Capabilities, collect
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai import OpenAIBackend
from pentad.model.catalogue import CATALOGUE, entry_of
from pentad.model.loading import open_model
from pentad.model.sampling_defaults import OPEN
from pentad.model.store import ModelStore
from pentad.testing.backends import ScriptedBackend
from pentad.types import Message, Request, Sampling

ADVISED = {"temperature": 0.2, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1}
UINT32, FLOAT32 = 4, 6  # kinds of GGUF values
GGUF_PAIRS = [
    make.pair("general.sampling.temp", FLOAT32, 0.2),
    make.pair("general.sampling.top_p", FLOAT32, 0.9),
    make.pair("general.sampling.top_k", UINT32, 20),
    make.pair("general.sampling.min_p", FLOAT32, 0.05),
    make.pair("general.sampling.penalty_repeat", FLOAT32, 1.1),
]
ASK = [{"role": "user", "content": "Say hello"}]
DIALECTS = {
    "/v1/chat/completions": {"messages": ASK},
    "/v1/completions": {"prompt": "a b"},
    "/v1/messages": {"messages": ASK, "max_tokens": 9},
    "/v1/responses": {"input": "a b"},
}


def advised(sampling: dict[str, float]) -> Capabilities:
    return Capabilities(model="scripted", context_length=8192, sampling=sampling)


def drawn(sampling: Sampling) -> dict[str, float]:
    return {name: getattr(sampling, name) for name in ADVISED}


def gguf(path: pathlib.Path, *pairs: bytes) -> pathlib.Path:
    arrays = make.tensors(make.llama_gguf_shapes())
    path.write_bytes(make.f32_gguf([*make.llama_pairs(), *make.tokenizer_pairs(), *pairs], arrays))
    return path


# Reading


def test_a_gguf_file_says_how_to_draw(tmp_path: pathlib.Path) -> None:
    assert dict(open_model(gguf(tmp_path / "a.gguf", *GGUF_PAIRS)).sampling) == ADVISED
    assert dict(open_model(gguf(tmp_path / "b.gguf")).sampling) == {}


def test_a_generation_config_says_how_to_draw(tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny")
    (folder / "generation_config.json").write_text(json.dumps({**ADVISED, "do_sample": True}))
    assert dict(open_model(folder).sampling) == ADVISED


@pytest.mark.parametrize("value", ["hot", True, -1, 1e300, [], float("nan")])
def test_a_default_out_of_range_is_left_out_aloud_and_the_model_opens(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny")
    text = json.dumps({"temperature": value, "top_p": 0.9})
    (folder / "generation_config.json").write_text(text.replace("NaN", "1e999"))
    assert dict(open_model(folder).sampling) == {"top_p": 0.9}
    assert "generation_config.json: a sampling default is left out: temperature" in caplog.text


def test_a_top_k_of_minus_one_is_no_limit(tmp_path: pathlib.Path) -> None:
    folder = make.write_llama_folder(tmp_path / "tiny")
    (folder / "generation_config.json").write_text('{"top_k": -1}')
    assert dict(open_model(folder).sampling) == {"top_k": 0}


def test_the_catalogue_fills_what_the_files_leave_out(tmp_path: pathlib.Path) -> None:
    store = ModelStore(tmp_path / "home")
    entry = CATALOGUE["smollm2-135m"]
    path = gguf(tmp_path / "a.gguf", GGUF_PAIRS[0])
    assert dict(store.open(store.resolve(str(path))).sampling) == {"temperature": 0.2}
    assert entry_of(entry.ref, CATALOGUE) is entry
    assert entry_of("derived:smollm2-135m:0123", CATALOGUE) is entry, "made here from a model that it knows"
    assert entry_of("derived:other:0123", CATALOGUE) is None


# Keeping to it


@pytest.mark.parametrize("path", DIALECTS)
def test_what_a_client_does_not_send_is_the_models(path: str) -> None:
    app, backend = scripted_app(capabilities=advised(ADVISED))
    assert call(app, "POST", path, body={"model": "scripted", **DIALECTS[path]}).status_code == 200
    assert drawn(backend.requests[0].sampling) == ADVISED


@pytest.mark.parametrize("path", DIALECTS)
def test_what_a_client_sends_is_the_clients(path: str) -> None:
    app, backend = scripted_app(capabilities=advised(ADVISED))
    body = {"model": "scripted", **DIALECTS[path], "temperature": 0, "top_p": 1}
    assert call(app, "POST", path, body=body).status_code == 200
    assert drawn(backend.requests[0].sampling) == ADVISED | {"temperature": 0, "top_p": 1}


@pytest.mark.parametrize("path", DIALECTS)
def test_without_advice_the_apis_own_defaults_hold(path: str) -> None:
    app, backend = scripted_app()
    assert call(app, "POST", path, body={"model": "scripted", **DIALECTS[path]}).status_code == 200
    assert drawn(backend.requests[0].sampling) == drawn(Sampling())


def test_all_fields_that_mean_no_limit_count_as_sent() -> None:
    app, backend = scripted_app(capabilities=advised(ADVISED))
    assert chat(app, top_k=0, min_p=0, repetition_penalty=1).status_code == 200
    asked = backend.requests[0].sampling
    assert (asked.top_k, asked.min_p, asked.repetition_penalty) == (0, 0, 1)


@pytest.mark.parametrize(
    ("given", "advice", "expected"), [(None, ADVISED, 0.2), (None, {}, 0.7), (0.5, ADVISED, 0.5)]
)
def test_the_terminal_takes_the_models_temperature_unless_told(
    given: float | None, advice: dict[str, float], expected: float
) -> None:
    from gateway_support import model_service

    backend = ScriptedBackend([["hi"]], capabilities=advised(advice))
    answer = asyncio.run(Talk(temperature=given).whole(model_service(backend), "hello"))
    assert backend.requests[0].sampling.temperature == expected
    assert (answer["sampling_defaults"] or "").startswith("temperature") == (given is None and bool(advice))


# Telling


def test_the_explanation_names_the_defaults_that_held() -> None:
    app, _ = scripted_app(capabilities=advised(ADVISED))
    answer = chat(app, top_k=3, pentad={"explain": True}).json()
    (said,) = [d for d in answer["pentad"]["decisions"] if d["subject"] == "sampling"]
    assert said["policy"] == "model_defaults"
    assert said["chosen"] == "temperature 0.2, top_p 0.9, min_p 0.05, repetition_penalty 1.1"


def test_the_list_of_models_and_a_response_name_them() -> None:
    app, _ = scripted_app(capabilities=advised(ADVISED))
    (card,) = call(app, "GET", "/v1/models").json()["data"]
    assert card["capabilities"]["sampling"] == ADVISED
    response = call(app, "POST", "/v1/responses", body={"model": "scripted", "input": "x"}).json()
    assert (response["temperature"], response["top_p"]) == (0.2, 0.9)


# Elsewhere


@pytest.mark.parametrize(
    ("left_open", "sent"), [(frozenset(), {"temperature": 1.0, "top_p": 1.0}), (OPEN, {})]
)
def test_an_endpoint_is_not_told_what_the_client_left_open(left_open: frozenset[str], sent: Any) -> None:
    bodies: list[dict[str, Any]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        chunk = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
        text = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=text)

    async def ask() -> None:
        endpoint = Endpoint(base_url="http://far.example/v1", model="big", api_key="key")
        backend = OpenAIBackend(endpoint, name="far", transport=httpx2.MockTransport(answer))
        messages = (Message(role="user", content="hello"),)
        await collect(
            backend.stream(
                Request(id="r", messages=messages, model="", sampling=Sampling(left_open=left_open))
            )
        )
        await backend.close()

    asyncio.run(ask())
    assert {name: bodies[0][name] for name in ADVISED if name in bodies[0]} == sent
