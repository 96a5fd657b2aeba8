"""A body's values are counted before they are made; what stands in strings is text."""

from __future__ import annotations

import json

import pytest

from gateway_app import chat, param_of, scripted_app
from pentad.application.gateway.structure import MAX_VALUES, SMALL_BYTES, check_structure
from pentad.errors import InvalidRequest

MANY = MAX_VALUES + 10


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MANY + b"0]",
        b"[" + b"{}," * MANY + b"0]",
        b"[" + b"0," * MANY + b"0]",
        b"[" + b'"",' * MANY * 2 + b"0]",
        b'{"a":"\\\\",' + b'"b":[' + b"1," * MANY + b"1]}",
        b'{"a":"\\",\\"","b":[' + b"1," * MANY + b"1]}",
    ],
)
def test_more_values_than_allowed_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="more than 262144 values"):
        check_structure(body)


@pytest.mark.parametrize("text", ["a,b" * MANY, '{"[,"}' * MANY, 'say "no", \\' * MANY, "\\" * SMALL_BYTES])
def test_text_may_hold_whatever_it_likes(text: str) -> None:
    check_structure(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())


def test_a_schema_bomb_gets_a_400_that_blames_the_body() -> None:
    app, backend = scripted_app()
    refused = chat(app, tools=[[] for _ in range(MANY)])
    assert (refused.status_code, param_of(refused)) == (400, "body")
    assert not backend.requests
