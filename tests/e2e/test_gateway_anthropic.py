"""The stock Anthropic client, unmodified, against a live gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic

from gateway_support import Live, scripted
from pentad.errors import BackendFailed, ContextLengthExceeded, Overloaded
from pentad.execution.backend import ChoiceDone, TextDelta
from pentad.types import ToolCall, Usage

HELLO: Any = [{"role": "user", "content": "Say hello"}]
ADD: Any = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


def client_of(live: Live, key: str = "unused") -> Anthropic:
    return Anthropic(base_url=live.url, api_key=key, max_retries=0)


def test_a_message_is_answered_with_its_usage() -> None:
    turn = ["Hel", "lo", Usage(prompt_tokens=10, cached_tokens=8, completion_tokens=2)]
    with scripted(turn) as live, client_of(live) as client:
        message = client.messages.create(
            model="scripted",
            max_tokens=20,
            system="Be brief.",
            messages=HELLO,
            stop_sequences=["###"],
            extra_body={"top_k": 5},
        )
        assert live.backend is not None
        request = live.backend.requests[0]
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == "Hello"  # type: ignore[union-attr]
    assert (message.stop_reason, message.role) == ("end_turn", "assistant")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (2, 8, 2)
    assert [m.role for m in request.messages or ()] == ["system", "user"]
    assert (request.sampling.max_tokens, request.sampling.top_k, request.sampling.stop) == (20, 5, ("###",))


def test_a_streamed_message_adds_up_to_the_plain_one() -> None:
    turn = [
        TextDelta(text="hm", kind="reasoning"),
        "Hel",
        "lo",
        ToolCall(id="toolu_1", name="add", arguments='{"a": 1}'),
        ToolCall(id="toolu_2", name="add", arguments='{"a": 2}'),
        Usage(prompt_tokens=10, cached_tokens=8, completion_tokens=5),
    ]
    with scripted(turn, turn, turn) as live, client_of(live) as client:
        plain = client.messages.create(model="scripted", max_tokens=20, messages=HELLO, tools=[ADD])
        with client.messages.stream(model="scripted", max_tokens=20, messages=HELLO, tools=[ADD]) as stream:
            folded = stream.get_final_message()
        events = list(
            client.messages.create(model="scripted", max_tokens=20, messages=HELLO, tools=[ADD], stream=True)
        )
    assert [b.to_dict() for b in folded.content] == [b.to_dict() for b in plain.content]
    assert [block.type for block in plain.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert plain.content[2].input == {"a": 1}  # type: ignore[union-attr]
    assert folded.stop_reason == plain.stop_reason == "tool_use"
    assert folded.usage.model_dump() == plain.usage.model_dump()
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    starts = [e.index for e in events if e.type == "content_block_start"]
    stops = [e.index for e in events if e.type == "content_block_stop"]
    assert starts == stops == [0, 1, 2, 3]
    assert events[0].message.usage.input_tokens == 2  # type: ignore[union-attr]


def test_tool_results_go_back_to_the_model() -> None:
    with scripted(["It is 3."]) as live, client_of(live) as client:
        client.messages.create(
            model="scripted",
            max_tokens=20,
            messages=[
                *HELLO,
                {"role": "assistant", "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "3"}]},
                    {"type": "text", "text": "Go on."},
                ]},
            ],
            tools=[ADD],
            tool_choice={"type": "tool", "name": "add", "disable_parallel_tool_use": True},
        )  # fmt: skip
        assert live.backend is not None
        request = live.backend.requests[0]
    turns = request.messages or ()
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "user"]
    assert turns[1].tool_calls[0].arguments == '{"a":1}'
    assert (turns[2].tool_call_id, turns[2].content, turns[3].content) == ("t1", "3", "Go on.")
    assert (request.tool_choice.mode, request.tool_choice.parallel) == ("named", False)


def test_why_a_turn_ended_is_told_in_anthropics_words() -> None:
    ends = [ChoiceDone(reason="length")], [ChoiceDone(reason="stop", stop="###")]
    with scripted(*[["x", *end] for end in ends]) as live, client_of(live) as client:
        cut = client.messages.create(model="scripted", max_tokens=1, messages=HELLO)
        stopped = client.messages.create(model="scripted", max_tokens=9, messages=HELLO)
    assert cut.stop_reason == "max_tokens"
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "###")


def test_tokens_are_counted_without_generating() -> None:
    with scripted() as live, client_of(live) as client:
        count = client.messages.count_tokens(
            model="scripted", system="one two", messages=[{"role": "user", "content": "three four five"}]
        )
    assert count.input_tokens == 5


def test_structured_output_is_constrained_to_its_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with scripted(['{"a": 1}']) as live, client_of(live) as client:
        client.messages.create(
            model="scripted",
            max_tokens=20,
            messages=HELLO,
            output_config={"format": {"type": "json_schema", "schema": schema}},
        )
        assert live.backend is not None
        assert live.backend.requests[0].format.value == schema


def test_the_async_client_streams() -> None:
    async def text(url: str) -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=url, api_key="unused", max_retries=0) as client,
            client.messages.stream(model="scripted", max_tokens=9, messages=HELLO) as stream,
        ):
            return "".join([piece async for piece in stream.text_stream])

    with scripted(["a", "b"]) as live:
        assert asyncio.run(text(live.url)) == "ab"


@pytest.mark.parametrize(
    ("error", "expected", "kind"),
    [
        (ContextLengthExceeded("too long"), anthropic.BadRequestError, "invalid_request_error"),
        (Overloaded("full"), anthropic.RateLimitError, "rate_limit_error"),
    ],
)
def test_errors_have_anthropics_shape(
    error: Exception, expected: type[anthropic.APIStatusError], kind: str
) -> None:
    with scripted([error]) as live, client_of(live) as client, pytest.raises(expected) as caught:
        client.messages.create(model="scripted", max_tokens=9, messages=HELLO)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == caught.value.response.headers["x-request-id"]


def test_an_error_in_the_stream_is_an_error_event() -> None:
    with scripted(["a", BackendFailed("it broke")]) as live, client_of(live) as client:
        stream = client.messages.create(model="scripted", max_tokens=9, messages=HELLO, stream=True)
        with pytest.raises(anthropic.APIError, match="it broke"):
            list(stream)


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_the_key_is_taken_from_either_header(header: str) -> None:
    with scripted(["a"], api_keys=("s3cret",)) as live, httpx2.Client(base_url=live.url) as client:
        body = {"model": "scripted", "max_tokens": 9, "messages": HELLO}
        value = "s3cret" if header == "x-api-key" else "Bearer s3cret"
        assert client.post("/v1/messages", json=body).status_code == 401
        assert client.post("/v1/messages", json=body, headers={header: value}).status_code == 200
