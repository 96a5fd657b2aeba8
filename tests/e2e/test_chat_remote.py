"""OpenAIBackend against a live gateway: Pentad in front of Pentad, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import replace

import pytest

from gateway_support import Live, eventually, scripted
from pentad.errors import BackendFailed, ContextLengthExceeded, Overloaded, PentadError, Unavailable
from pentad.execution.backend import Completion, TextDelta, ToolCallDelta, collect
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai import OpenAIBackend
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import Message, OutputFormat, Request, Sampling, ToolCall, ToolSpec, Usage

ADD = ToolSpec(name="add", description="adds", parameters={"type": "object", "properties": {"a": {}}})


def far(live: Live) -> OpenAIBackend:
    return OpenAIBackend(Endpoint(base_url=f"{live.url}/v1", model="scripted", timeout_s=10))


def ask(**change: object) -> Request:
    messages = (Message(role="system", content="s"), Message(role="user", content="hi"))
    return Request(id="r", model="far", messages=messages, **change)  # type: ignore[arg-type]


async def once(backend: OpenAIBackend, request: Request) -> Completion:
    try:
        return await collect(backend.stream(request))
    finally:
        await backend.close()


def both(turn: Turn, request: Request) -> tuple[Completion, Completion]:
    """The same turn played here, and through a gateway."""
    here = asyncio.run(collect(ScriptedBackend([turn]).stream(request)))
    with scripted(turn) as live:
        return here, asyncio.run(once(far(live), request))


def test_a_remote_answer_is_the_same_as_a_local_one() -> None:
    usage = Usage(prompt_tokens=7, cached_tokens=3, completion_tokens=5)
    turn: Turn = ["He", "llo \N{WOMAN}\N{ZERO WIDTH JOINER}", TextDelta(text="hm", kind="reasoning"), usage]
    here, there = both(turn, ask())
    assert there.message == here.message
    assert there.choices[0].reasoning == "hm"
    counted = (there.usage.prompt_tokens, there.usage.cached_tokens, there.usage.completion_tokens)
    assert counted == (7, 3, 5)


def test_remote_calls_keep_ids_names_and_arguments() -> None:
    calls = (
        ToolCall(id="call_a", name="add", arguments='{"a": "é}"}'),
        ToolCall(id="call_b", name="add", arguments="{}"),
    )
    here, there = both(["wait", *calls], ask(tools=(ADD,)))
    assert there.message.tool_calls == here.message.tool_calls == calls
    assert there.choices[0].reason == "tool_calls"


def test_what_was_asked_arrives_at_the_far_end() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    request = ask(
        format=OutputFormat(kind="json_schema", value=schema),
        sampling=Sampling(temperature=0.25, top_p=0.5, max_tokens=9, stop=("x",), seed=3),
    )
    with scripted(['{"x":1}']) as live:
        answer = asyncio.run(once(far(live), request))
        assert live.backend is not None
        seen = live.backend.requests[0]
    assert json.loads(answer.message.content) == {"x": 1}
    assert seen.messages == request.messages
    assert seen.format == request.format
    # The gateway notes what was left open, and that an answer may be fitted; what was said is as it was.
    said = replace(seen.sampling, left_open=frozenset(), fit_max_tokens=False)
    assert said == request.sampling


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (Overloaded("full", retry_after_s=7), Overloaded),
        (Unavailable("draining"), Unavailable),
        (ContextLengthExceeded("too long", param="messages"), ContextLengthExceeded),
        (BackendFailed("broke"), BackendFailed),
    ],
)
def test_errors_keep_their_meaning(error: PentadError, becomes: type[PentadError]) -> None:
    with scripted([error]) as live, pytest.raises(PentadError) as caught:
        asyncio.run(once(far(live), ask()))
    assert type(caught.value) is becomes
    if becomes is Overloaded:
        assert isinstance(caught.value, Overloaded)
        assert caught.value.retry_after_s == 7


def test_an_error_in_the_middle_of_the_stream_is_told() -> None:
    with scripted(["a", BackendFailed("broke")]) as live, pytest.raises(BackendFailed):
        asyncio.run(once(far(live), ask()))


def test_a_refused_connection_is_unavailable() -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        backend = OpenAIBackend(Endpoint(base_url=url, model="m", timeout_s=5))
        with pytest.raises(Unavailable, match="cannot be reached"):
            asyncio.run(once(backend, ask()))


def test_closing_the_stream_cancels_at_the_far_end() -> None:
    gate = asyncio.Event()

    async def first_only(backend: OpenAIBackend) -> TextDelta | ToolCallDelta | object:
        stream = backend.stream(ask())
        first = await anext(stream)
        await stream.aclose()
        await backend.close()
        return first

    with scripted(["a", gate, "b"]) as live:
        assert asyncio.run(first_only(far(live))) == TextDelta(text="a")
        assert live.backend is not None
        far_end = live.backend
        eventually(lambda: far_end.closed_early == 1)
