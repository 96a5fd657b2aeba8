"""Deltas as Anthropic's message events, and their fold as a message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from pentad.application.gateway.context import notices, wire_energy
from pentad.application.gateway.schemas.messages import AnswerBlock, MessagesAnswer, MessagesUsage
from pentad.application.gateway.translate.chat_answer import Explain
from pentad.application.gateway.translate.frames import encode, event_frame, finish_reason
from pentad.execution.backend import (
    Choice,
    ChoiceDone,
    Completion,
    Delta,
    StreamDone,
    TextDelta,
    ToolCallDelta,
)
from pentad.types import ToolCall, Usage

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def stop_reason(done: ChoiceDone | Choice, usage: Usage) -> str:
    """Why the turn ended, in Anthropic's words."""
    if done.stop is not None:
        return "stop_sequence"
    reason = _REASONS[finish_reason(done.reason)]
    fitted = any(one.subject == "max_tokens" and one.policy == "fitted" for one in usage.decisions)
    return "model_context_window_exceeded" if fitted and reason == "max_tokens" else reason


def messages_usage(usage: Usage) -> MessagesUsage:
    """Tokens as Anthropic counts them."""
    return MessagesUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        notices=notices(usage),
        energy=wire_energy(usage),
    )


def messages_answer(completion: Completion, *, id: str, model: str, explain: Explain) -> MessagesAnswer:
    """The plain answer."""
    choice = completion.choices[0]
    explained = explain(completion.usage)
    blocks: list[AnswerBlock] = []
    if choice.reasoning:
        blocks.append(AnswerBlock(type="thinking", thinking=choice.reasoning, signature=""))
    if choice.message.content:
        blocks.append(AnswerBlock(type="text", text=choice.message.content))
    blocks += [
        AnswerBlock(type="tool_use", id=call.id, name=call.name, input=_input(call))
        for call in choice.message.tool_calls
    ]
    return MessagesAnswer(
        id=id,
        model=model,
        content=blocks,
        stop_reason=stop_reason(choice, completion.usage),
        stop_sequence=choice.stop,
        usage=messages_usage(completion.usage),
        pentad=UNSET if explained is None else explained,
    )


def _input(call: ToolCall) -> dict[str, Any]:
    """The call's arguments; a call that max_tokens cut short keeps its text."""
    try:
        return call.parsed()
    except ValueError:
        return {"_incomplete": call.arguments}


@dataclass(slots=True)
class _Blocks:
    """Which content block is open, and its number."""

    index: int = -1
    open: object = None

    def switch(self, key: object, content: dict[str, Any]) -> bytes:
        """Closes what is open and opens a block, unless it is the same one."""
        if self.open == key:
            return b""
        closing = self.close()
        self.index += 1
        self.open = key
        start = {"type": "content_block_start", "index": self.index, "content_block": content}
        return closing + event_frame("content_block_start", start)

    def close(self) -> bytes:
        """The end of the open block, if any."""
        if self.open is None:
            return b""
        self.open = None
        return event_frame("content_block_stop", {"type": "content_block_stop", "index": self.index})

    def delta(self, kind: bytes, name: bytes, text: str) -> bytes:
        """A piece of the open block."""
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%s","%s":%s}}\n\n' % (self.index, kind, name, encode(text))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvents:
    """Writes the events of one streamed message."""

    id: str
    model: str
    prompt_tokens: Callable[[], Awaitable[int]]
    """Counts the prompt; asked once, when the first piece is there."""
    explain: Explain
    _blocks: _Blocks = field(default_factory=_Blocks)

    async def frames(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """message_start, blocks, message_delta, message_stop."""
        begun = False
        end: ChoiceDone | None = None
        async with aclosing(deltas) as stream:
            async for delta in stream:
                if not begun:
                    begun = True
                    yield self._start(await self.prompt_tokens())
                match delta:
                    case ChoiceDone():
                        end = delta
                        if closing := self._blocks.close():
                            yield closing
                    case StreamDone():
                        yield self._stop(end, delta.usage)
                    case TextDelta() | ToolCallDelta():
                        if piece := b"".join(self._piece(delta)):
                            yield piece
        yield event_frame("message_stop", {"type": "message_stop"})

    def _start(self, prompt_tokens: int) -> bytes:
        message = MessagesAnswer(
            id=self.id,
            model=self.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=MessagesUsage(input_tokens=prompt_tokens, output_tokens=0),
        )
        return event_frame("message_start", {"type": "message_start", "message": message})

    def _piece(self, delta: TextDelta | ToolCallDelta) -> Iterator[bytes]:
        blocks = self._blocks
        if isinstance(delta, ToolCallDelta):
            if delta.id is not None:
                content: dict[str, Any] = {
                    "type": "tool_use",
                    "id": delta.id,
                    "name": delta.name,
                    "input": {},
                }
                yield blocks.switch(("tool", delta.index), content)
            if delta.arguments:
                yield blocks.delta(b"input_json_delta", b"partial_json", delta.arguments)
        elif not delta.text:
            return
        elif delta.kind == "reasoning":
            yield blocks.switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield blocks.delta(b"thinking_delta", b"thinking", delta.text)
        else:
            yield blocks.switch("text", {"type": "text", "text": ""})
            yield blocks.delta(b"text_delta", b"text", delta.text)

    def _stop(self, end: ChoiceDone | None, usage: Usage) -> bytes:
        assert end is not None, "a stream ends its choice before itself"
        event: dict[str, Any] = {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason(end, usage), "stop_sequence": end.stop},
            "usage": messages_usage(usage),
        }
        explained = self.explain(usage)
        if explained is not None:
            event["pentad"] = explained
        return event_frame("message_delta", event)
