"""The stock Anthropic client's tool runner, which asks for threads, against a gateway that keeps none."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, beta_tool

from gateway_support import Live, scripted
from pentad.types import ToolCall

ASK: Any = [{"role": "user", "content": "What is 1 and 2, and twice that?"}]


@beta_tool
def add(a: int, b: int) -> str:
    """Adds two numbers.

    Args:
        a: one.
        b: the other.
    """
    return str(a + b)


def client_of(live: Live) -> Anthropic:
    return Anthropic(base_url=live.url, api_key="unused", max_retries=0)


def call(a: int, b: int) -> ToolCall:
    return ToolCall(id=f"toolu_{a}", name="add", arguments=f'{{"a": {a}, "b": {b}}}')


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_tool_runner_sends_the_whole_conversation_at_every_turn(stream: bool) -> None:
    with scripted([call(1, 2)], ["Now double.", call(3, 3)], ["6"]) as live, client_of(live) as client:
        runner = client.beta.messages.tool_runner(
            model="scripted", max_tokens=50, messages=ASK, tools=[add], stream=stream
        )
        last = runner.until_done()
        assert live.backend is not None
        requests = live.backend.requests
    assert last.content[0].text == "6"  # type: ignore[union-attr]
    roles = [[turn.role for turn in request.messages or ()] for request in requests]
    assert roles == [
        ["user"],
        ["user", "assistant", "tool"],
        ["user", "assistant", "tool", "assistant", "tool"],
    ]
    assert [turn.content for turn in requests[2].messages or () if turn.role == "tool"] == ["3", "6"]


@pytest.mark.parametrize(
    "thread",
    [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}],
    ids=["create", "continue"],
)
def test_a_thread_is_refused_in_the_form_that_makes_clients_send_everything(thread: Any) -> None:
    with scripted() as live, client_of(live) as client:
        with pytest.raises(anthropic.BadRequestError) as refused:
            client.beta.messages.create(model="scripted", max_tokens=9, messages=ASK, thread=thread)
        assert live.backend is not None
        assert live.backend.requests == []
    body: Any = refused.value.body
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request"}


@pytest.mark.parametrize(
    "field",
    [
        {"container": "container_1"},
        {"mcp_servers": [{"type": "url", "name": "x", "url": "https://example.com"}]},
        {"compaction": {"type": "summarize"}},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_the_server_would_keep_or_do_is_refused_with_what_to_do_instead(field: dict[str, Any]) -> None:
    name = next(iter(field))
    with scripted() as live, client_of(live) as client:
        with pytest.raises(anthropic.BadRequestError, match=f"{name} is not served here; "):
            client.messages.create(model="scripted", max_tokens=9, messages=ASK, extra_body=field)
        assert live.backend is not None
        assert live.backend.requests == []
