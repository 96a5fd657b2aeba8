"""Bad input is told what is wrong with it, at every route, and never breaks the server."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from starlette.requests import Request as HttpRequest

from gateway_app import BODY_OPERATIONS, call, chat, message_of, param_of, scripted_app
from pentad.application.gateway.core import Gateway
from pentad.errors import InvalidRequest

MALFORMED = {
    "empty": b"",
    "not json": b"{",
    "trailing": b"{} {}",
    "not an object": b"[1, 2]",
    "null": b"null",
    "nan": b'{"model": NaN}',
    "not utf-8": b'{"model": "\xff\xfe"}',
    "lone surrogate": b'{"model": "\\ud800"}',
    "deep arrays": b'{"model": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep unknown": b'{"unknown": ' + b"[" * 100_000,
    "huge number": b'{"model": "scripted", "n": ' + b"9" * 5000 + b"}",
    "huge float": b'{"temperature": 1e999}',
    "wrong types": b'{"model": 1, "messages": "x", "prompt": {}, "input": 1, "goal": [], "tokens": "a"}',
}


@pytest.mark.parametrize(("method", "path"), BODY_OPERATIONS)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bodies_are_400_on_every_route(method: str, path: str, body: bytes) -> None:
    app, backend = scripted_app()
    response = call(app, method, path, raw=body)
    assert response.status_code == 400
    assert message_of(response)
    assert "Traceback" not in response.text
    assert backend.requests == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 10**9}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"presence_penalty": 5}, "presence_penalty"),
        ({"logit_bias": {str(i): 1 for i in range(2000)}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"stop": ["x"] * 10_000}, "stop"),
        ({"stop": ["x" * 5000]}, "stop[0]"),
        ({"logprobs": True, "top_logprobs": 10**6}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"seed": 2**64}, "seed"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"top_k": -2}, "top_k"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"pentad": {"slo": {"ttft_s": 0}}}, "pentad.slo.ttft_s"),
        ({"pentad": {"quality": 2}}, "pentad.quality"),
    ],
)
def test_values_out_of_range_are_400_and_name_the_field(fields: dict[str, Any], param: str) -> None:
    app, backend = scripted_app()
    response = chat(app, **fields)
    assert (response.status_code, param_of(response)) == (400, param)
    assert backend.requests == []


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"properties": value}
    return value


@pytest.mark.parametrize(
    "schema", [_nested(200), {"enum": list(range(50_000))}], ids=["nested 200 deep", "50,000 values"]
)
def test_schema_bombs_are_refused_before_anything_walks_them(schema: dict[str, Any]) -> None:
    app, backend = scripted_app()
    tool = {"type": "function", "function": {"name": "x", "parameters": schema}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for fields in ({"tools": [tool]}, {"response_format": wanted}, {"chat_template_kwargs": schema}):
        assert chat(app, **fields).status_code == 400
    assert backend.requests == []


def test_duplicate_keys_are_tolerated_and_the_last_one_counts() -> None:
    app, backend = scripted_app()
    raw = b'{"model":"no","model":"scripted","messages":[{"role":"user","content":"x"}],"seed":1,"seed":2}'
    assert call(app, "POST", "/v1/chat/completions", raw=raw).status_code == 200
    assert backend.requests[0].sampling.seed == 2


def test_unknown_fields_are_ignored_and_reported() -> None:
    app, _ = scripted_app()
    response = chat(app, verbosity="low", **{"x\r\ny": 1, "": 2})
    assert response.status_code == 200
    assert response.headers["x-pentad-ignored"] == "verbosity, x??y, ?"
    assert "x-pentad-ignored" not in chat(app).headers


def test_a_huge_value_is_not_echoed_in_the_error() -> None:
    app, _ = scripted_app()
    for fields in ({"model": "m" * 10_000}, {"messages": [{"role": "r" * 10_000, "content": ""}]}):
        response = chat(app, **fields)
        assert response.status_code == 400
        assert len(response.text) < 1000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip"])
def test_compressed_bodies_are_refused(coding: str) -> None:
    app, _ = scripted_app()
    response = call(
        app, "POST", "/v1/chat/completions", raw=b"\x1f\x8b", headers={"content-encoding": coding}
    )
    assert response.status_code == 400
    assert "uncompressed" in response.json()["error"]["message"]


def test_a_body_over_the_limit_is_413_whether_or_not_it_declares_its_size() -> None:
    app, backend = scripted_app(max_body_bytes=1000)
    big = b" " * 2000
    for headers in ({}, {"content-length": "0"}, {"content-length": "99999999999999999999999"}):
        response = call(app, "POST", "/v1/chat/completions", raw=big, headers=headers)
        assert response.status_code == 413
        assert "--max-body-bytes" in response.json()["error"]["message"]
    assert backend.requests == []


def test_text_reaches_the_model_exactly_as_sent() -> None:
    app, backend = scripted_app()
    text = "<|im_start|>system\nשלום e\u0301 \N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} \x00 \u202e"
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": text}]
    assert chat(app, messages=[{"role": "user", "content": parts}]).status_code == 200
    assert backend.requests[0].messages is not None
    assert backend.requests[0].messages[0].content == f"a\n{text}"


@pytest.mark.parametrize(
    "path",
    ["/v1/nothing", "/", "/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e%2fetc", "/v1/runs/%00"],
)
def test_unknown_paths_are_404_in_json(path: str) -> None:
    app, _ = scripted_app()
    response = call(app, "DELETE" if path == "/" else "GET", path)
    assert response.status_code in (404, 405)
    assert response.json()["error"]["code"] in ("not_found", "model_not_found", "method_not_allowed")


def test_a_wrong_method_is_405_and_names_the_right_ones() -> None:
    app, _ = scripted_app()
    response = call(app, "GET", "/v1/chat/completions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


def test_errors_on_anthropics_paths_have_its_shape() -> None:
    app, _ = scripted_app()
    body = call(app, "POST", "/v1/messages", raw=b"{").json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "' + b"m" * 10**6 + b'", "messages": []}',
        b'{"' + b"k" * 10**6 + b'": 1}',
        b'{"model": "scripted", "messages": [{"role": "' + b"r" * 10**6 + b'", "content": "x"}]}',
        b'{"model": "scripted", "messages": [], "tool_choice": {"' + b"k" * 10**6 + b'": 1}}',
    ],
    ids=["model", "key", "role", "inner key"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_a_megabyte_of_what_was_asked_does_not_come_back_whole(path: str, body: bytes) -> None:
    app, _ = scripted_app()
    response = call(app, "POST", path, raw=body)
    assert 400 <= response.status_code < 500
    assert len(response.content) < 10_000


def test_what_is_left_out_of_an_error_is_counted() -> None:
    error = InvalidRequest("x" * 10_000 + " end", hint="y" * 10_000, param="z" * 10_000)
    assert len(error.message) < 2_100
    assert "characters) ..." in error.message
    assert error.message.endswith(" end")
    assert error.hint is not None
    assert len(str(error)) < 4_200
    assert error.param is not None
    assert len(error.param) < 300


def test_what_a_refused_request_held_is_free_without_the_garbage_collector() -> None:
    class Text:
        """Stands for a large body."""

    app, _ = scripted_app()
    gateway: Gateway = app.state.gateway

    async def refused(text: Text) -> None:
        await asyncio.sleep(0)
        raise InvalidRequest(f"too long: {type(text).__name__}")

    async def receive() -> dict[str, str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        http = HttpRequest({"type": "http", "headers": []}, receive)
        text = Text()
        gone = weakref.ref(text)
        try:
            await gateway.plain(http, refused(text))
        except InvalidRequest:
            del text
        await asyncio.sleep(0)  # callbacks of what has just been cancelled
        assert gone() is None

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
