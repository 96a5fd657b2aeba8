"""A body's values are counted before they are made; what stands in strings is text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_app import chat, param_of, scripted_app
from pentad.application.gateway import structure
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


def marks_outside_strings(raw: bytes) -> int:
    """Commas and opening brackets that stand in no string, byte by byte."""
    count, inside, escaped = 0, False, False
    for byte in raw:
        if escaped:
            escaped = False
        elif inside and byte == ord("\\"):
            escaped = True
        elif byte == ord('"'):
            inside = not inside
        elif not inside and byte in b",[{":
            count += 1
    return count


PIECES = st.sampled_from(["a\\", '"x"', '\\"', "[,{", "\u00e9\u4e16", "\\\\\\", "plain"])


@given(
    values=st.lists(st.one_of(PIECES, st.integers(), st.dictionaries(PIECES, st.lists(PIECES)))),
    slice_bytes=st.integers(1, 40),
    escaped=st.booleans(),
)
def test_slices_count_what_the_whole_does(values: list[object], slice_bytes: int, escaped: bool) -> None:
    raw = json.dumps(values, ensure_ascii=escaped).encode()
    count = marks_outside_strings(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "SMALL_BYTES", 0)
        patch.setattr(structure, "_SLICE_BYTES", slice_bytes)
        patch.setattr(structure, "MAX_VALUES", max(count, raw.count(b'"')))
        check_structure(raw)
        patch.setattr(structure, "MAX_VALUES", count - 1)
        with pytest.raises(InvalidRequest):
            check_structure(raw)
