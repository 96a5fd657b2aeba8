"""What endpoints send is neither trusted nor misread: odd forms, lies about usage, floods, redirects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from test_chat_openai_backend import answered, ask, backend, chunk, simple, sse, usage

from pentad.errors import BackendFailed, Incompatible
from pentad.execution.backend import Completion, StreamDone
from pentad.types import Message, OutputFormat, Sampling


def calls_of(*fragments: list[dict[str, Any]], finish: str = "tool_calls") -> list[tuple[str, str]]:
    chunks = [chunk(tool_calls=fragment) for fragment in fragments]
    got = answered(lambda _: sse(*chunks, chunk(finish=finish), usage(), "[DONE]"))
    assert got.choices[0].reason == "tool_calls"
    ids = [call.id for call in got.message.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    return [(call.name, call.arguments) for call in got.message.tool_calls]


def fragment(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


TWO = [("add", '{"a": 1}'), ("add", '{"a": 2}')]


@pytest.mark.parametrize("index", [{"index": 0}, {"index": None}, {}])
@pytest.mark.parametrize("ids", [("c1", "c2"), (None, None), ("", ""), ("same", "same")])
def test_parallel_calls_stay_apart_whatever_their_index_and_id(
    index: dict[str, Any], ids: tuple[str | None, str | None]
) -> None:
    one = fragment("add", '{"a": 1}', id=ids[0], **index)
    two = fragment("sub", '{"a": 2}', id=ids[1], **index)
    assert calls_of([one], [two]) == calls_of([one, two]) == [("add", '{"a": 1}'), ("sub", '{"a": 2}')]


def test_two_calls_of_one_tool_at_one_index_stay_apart() -> None:
    assert calls_of([fragment("add", TWO[0][1], index=0)], [fragment("add", TWO[1][1], index=0)]) == TWO
    begun = [[fragment("add", "", index=0, id=f"c{i}")] for i in (1, 2)]
    rest = [[fragment(None, TWO[i][1], index=0)] for i in (0, 1)]
    assert calls_of(begun[0], rest[0], begun[1], rest[1]) == TWO


def test_a_call_whose_name_and_id_come_with_every_fragment_is_one_call() -> None:
    pieces = ['{"a"', ": ", "1}"]
    assert calls_of(*([fragment("add", p, index=0, id="c1")] for p in pieces)) == TWO[:1]
    assert calls_of(*([fragment("add", p, index=0)] for p in pieces)) == TWO[:1]


def test_interleaved_calls_with_true_indices_are_joined_by_index() -> None:
    got = calls_of(
        [fragment("add", '{"a"', index=0, id="x"), fragment("add", '{"a"', index=1, id="y")],
        [fragment(None, ": 2}", index=1), fragment(None, ": 1}", index=0)],
    )
    assert got == TWO


@pytest.mark.parametrize(
    ("arguments", "read"), [(None, ""), ({"a": 1}, '{"a": 1}'), ({}, "{}"), ("{}", "{}")]
)
def test_arguments_may_be_null_or_an_object(arguments: Any, read: str) -> None:
    assert calls_of([fragment("add", arguments, index=0)]) == [("add", read)]


def test_stop_after_a_call_means_that_it_was_called() -> None:
    assert calls_of([fragment("add", "{}", index=0)], finish="stop") == [("add", "{}")]


def test_odd_chunks_are_read_for_what_they_hold() -> None:
    def bare(delta: Any, finish: Any = None) -> dict[str, Any]:
        return {"choices": [{"delta": delta, "finish_reason": finish}]}

    got = answered(
        lambda _: sse(
            {"choices": None},
            bare(None, ""),
            bare({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, ""),
            bare({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}, ""),
            bare({"content": None, "tool_calls": None}, "end_turn"),
            "[DONE]",
        )
    )
    assert (got.message.content, got.choices[0].reasoning, got.choices[0].reason) == ("Hello", "hm", "stop")


@pytest.mark.parametrize(
    "event",
    [
        [1, 2],
        {"choices": [{"index": [0], "delta": {}}]},
        {"choices": [{"index": 0, "delta": {"content": 7}}]},
        {"choices": [{"index": 0, "delta": {"content": [{"type": "image_url"}]}}]},
        {"choices": [7]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "n" * 999}}]}}]},
        {"choices": [], "usage": {"prompt_tokens": 10**30}},
        {"choices": [], "usage": {"prompt_tokens": "many"}},
    ],
)
def test_what_cannot_be_read_is_an_error_of_the_backend(event: Any) -> None:
    with pytest.raises(BackendFailed):
        answered(lambda _: sse(event, chunk(content="a", finish="stop"), "[DONE]"))


def told(*reported: dict[str, Any]) -> Completion:
    text = "word " * 400
    request = ask(messages=(Message(role="user", content="p" * 4000),), sampling=Sampling(max_tokens=450))
    return answered(lambda _: sse(chunk(content=text), chunk(finish="stop"), *reported, "[DONE]"), request)


def test_a_report_of_too_few_tokens_is_not_believed() -> None:
    for reported in (usage(0, 0), usage(9, 1)):
        got = told(reported)
        assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (1000, 450)
        assert got.usage.decisions[0].chosen == "estimated"
        assert "prompt tokens for 4000 bytes" in (got.usage.decisions[0].constraint or "")
    honest = told(usage(700, 401))
    assert (honest.usage.prompt_tokens, honest.usage.completion_tokens) == (700, 401)
    assert not honest.usage.decisions


class Flood(httpx2.AsyncByteStream):
    """Sends the same bytes until someone stops it, and counts them."""

    def __init__(self, piece: bytes, most: int = 1 << 28) -> None:
        self.piece, self.most, self.sent, self.closed = piece, most, 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.sent < self.most:
            self.sent += len(self.piece)
            yield self.piece

    async def aclose(self) -> None:
        self.closed = True


def flooded(flood: Flood, **change: Any) -> Completion:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=flood)

    return answered(answer, ask(sampling=Sampling(max_tokens=10)), **change)


def event_of(text: str) -> bytes:
    return f"data: {json.dumps(chunk(content=text))}\n\n".encode()


@pytest.mark.parametrize("text", ["a", "a" * 60_000])
def test_an_answer_stops_at_what_was_asked_for(text: str) -> None:
    flood = Flood(event_of(text))
    got = flooded(flood)
    assert got.choices[0].reason == "length"
    assert got.usage.completion_tokens == 10
    assert len(got.message.content) <= 10 * 16 + 1024
    assert flood.sent < 200_000
    assert flood.closed
    assert [d.subject for d in got.usage.decisions] == ["usage", "limit"]


@pytest.mark.parametrize("piece", [b"x" * 65536, b": comment\n\n" * 6000, b"data: {}\n" * 7000])
def test_bytes_without_an_answer_are_bounded(piece: bytes) -> None:
    flood = Flood(piece)
    with pytest.raises(BackendFailed, match="bytes"):
        flooded(flood, context_length=16)
    assert flood.sent < 2 << 20
    assert flood.closed


def test_a_compressed_answer_is_refused() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=Flood(b"\x1f\x8b"))

    with pytest.raises(BackendFailed, match="compresses"):
        answered(answer)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_carries_neither_prompt_nor_key_elsewhere(status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(status, headers={"location": "http://elsewhere.example/v1/chat/completions"})

    with pytest.raises(BackendFailed, match="leads to another address"):
        answered(answer)
    assert asked == ["http://far.example:8000/v1/chat/completions"]


def test_half_characters_are_joined_or_replaced() -> None:
    bits = ["a\ud83d", "\ude00b\udc00", "c", "\ud83d"]
    lone = fragment("add\ud800", '{"x": "\udfff"}', index=0, id="\ud800")
    events = [chunk(content=bit) for bit in bits]
    got = answered(lambda _: sse(*events, chunk(tool_calls=[lone]), chunk(finish="stop"), "[DONE]"))
    assert got.message.content == "a\N{GRINNING FACE}b\ufffdc\ufffd"
    call = got.message.tool_calls[0]
    assert (call.name, call.arguments) == ("add\ufffd", '{"x": "\ufffd"}')
    for text in (got.message.content, call.id, call.name, call.arguments):
        text.encode()


def test_a_lone_surrogate_in_an_error_is_replaced() -> None:
    body = json.dumps({"error": {"message": "no \ud800"}}).encode()
    with pytest.raises(BackendFailed) as caught:
        answered(lambda _: httpx2.Response(500, content=body))
    str(caught.value).encode()


def sent_with(request: Any, **change: Any) -> tuple[dict[str, Any], Completion]:
    seen: dict[str, Any] = {}

    def answer(http: httpx2.Request) -> httpx2.Response:
        seen.update(json.loads(http.content))
        return simple(http)

    return seen, answered(answer, request, **change)


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_schema_is_as_strict_as_it_was_asked_to_be(strict: bool | None) -> None:
    format = OutputFormat(kind="json_schema", value={"type": "object"}, strict=strict)
    seen, _ = sent_with(ask(format=format))
    assert seen["response_format"]["json_schema"].get("strict") is strict


def test_wishes_to_think_reach_endpoints_that_have_a_word_for_them() -> None:
    request = ask(template_options={"reasoning_effort": "low", "enable_thinking": False}, priority=3)
    seen, plain = sent_with(request)
    assert seen["reasoning_effort"] == "low"
    assert not {"chat_template_kwargs", "priority"} & seen.keys()
    first = plain.usage.decisions[0]
    assert (first.subject, first.constraint) == ("thinking", "vllm_fields")
    seen, _ = sent_with(request, vllm_fields=True)
    assert (seen["reasoning_effort"], seen["priority"]) == ("low", 3)
    assert seen["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_refused_field_names_the_setting_that_allows_it() -> None:
    with pytest.raises(Incompatible, match="set vllm_fields: true for this model in `backends`"):
        answered(simple, ask(sampling=Sampling(top_k=5)))
    assert sent_with(ask(sampling=Sampling(top_k=5)), vllm_fields=True)[0]["top_k"] == 5


def test_the_last_delta_is_the_usage() -> None:
    async def run() -> list[Any]:
        return [delta async for delta in backend(simple).stream(ask())]

    assert isinstance(asyncio.run(run())[-1], StreamDone)
