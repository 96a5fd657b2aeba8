"""ScriptedBackend plays what the test wrote, and notices what the test did not expect."""

from __future__ import annotations

import asyncio

import pytest

from pentad.errors import BackendFailed
from pentad.execution.backend import Backend, TextDelta, collect
from pentad.testing.backends import ScriptedBackend
from pentad.types import Message, Request, ToolCall, Usage


def ask(text: str = "one two three") -> Request:
    return Request(id="r", model="scripted", messages=(Message(role="user", content=text),))


def test_text_and_calls_fold_to_what_was_scripted() -> None:
    call = ToolCall(id="call_1", name="add", arguments='{"a": 1}')
    backend: Backend = ScriptedBackend([["Hel", "lo"], ["now", call]])
    first = asyncio.run(collect(backend.stream(ask())))
    second = asyncio.run(collect(backend.stream(ask())))
    assert (first.message.content, first.choices[0].reason) == ("Hello", "stop")
    assert (second.message.tool_calls, second.choices[0].reason) == ((call,), "tool_calls")
    assert first.usage.prompt_tokens == 3


def test_a_function_sees_the_request_and_usage_can_be_given() -> None:
    backend = ScriptedBackend([lambda r: [r.id, Usage(prompt_tokens=7, cached_tokens=5)]])
    answer = asyncio.run(collect(backend.stream(ask())))
    assert answer.message.content == "r"
    assert answer.usage.cached_tokens == 5


def test_errors_are_raised_at_their_place() -> None:
    async def run() -> None:
        stream = ScriptedBackend([["a", BackendFailed("broke")]]).stream(ask())
        assert await anext(stream) == TextDelta(text="a")
        with pytest.raises(BackendFailed):
            await anext(stream)

    asyncio.run(run())


def test_a_closed_stream_is_counted_and_an_event_holds_it() -> None:
    async def run() -> int:
        backend = ScriptedBackend([["a", asyncio.Event(), "b"]])
        stream = backend.stream(ask())
        assert await anext(stream) == TextDelta(text="a")
        await stream.aclose()
        return backend.closed_early

    assert asyncio.run(run()) == 1


def test_a_request_beyond_the_script_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="0 turns"):
        asyncio.run(collect(ScriptedBackend([]).stream(ask())))
