"""Deltas as Responses events; the plain answer is the last event's response."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import msgspec

from pentad.application.gateway.context import notices, wire_energy
from pentad.application.gateway.exchange import new_id
from pentad.application.gateway.schemas.chat import ContentLogprob
from pentad.application.gateway.schemas.responses import (
    IncompleteDetails,
    InputDetails,
    OutputDetails,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from pentad.application.gateway.translate.chat_answer import Explain
from pentad.application.gateway.translate.frames import encode, event_frame, finish_reason, logprob_content
from pentad.application.gateway.translate.response_tools import ShownNames
from pentad.application.gateway.translate.responses import add_call, add_reasoning, add_said
from pentad.errors import PentadError
from pentad.execution.backend import ChoiceDone, Delta, StreamDone, TextDelta, ToolCallDelta
from pentad.types import Message, ToolCall, Usage

Event = tuple[str, dict[str, Any]]


def response_usage(usage: Usage) -> ResponseUsage:
    """Tokens as the Responses format counts them."""
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens),
        output_tokens_details=OutputDetails(reasoning_tokens=usage.reasoning_tokens),
        notices=notices(usage),
        energy=wire_energy(usage),
    )


class ResponseBuilder:
    """Builds one response, event by event. Events are numbered from 0, without gaps.

    Args:
        start: the response as it is at first, `in_progress` and empty.
        explain: makes its `pentad` object.
        on_end: told of the finished response, before its last event is sent.
        shown: how the model calls the functions, where that is not by their own names.
    """

    def __init__(
        self,
        start: ResponseObject,
        *,
        explain: Explain,
        on_end: Callable[[ResponseBuilder], None],
        shown: ShownNames | None = None,
    ) -> None:
        self.response = start
        self._explain = explain
        self._on_end = on_end
        self._shown = shown or {}
        self._called = {name: function for function, name in self._shown.items()}
        self._number = 0
        self._item: dict[str, Any] | None = None
        self._key: object = None
        self._pieces: list[str] = []
        self._logprobs: list[ContentLogprob] = []
        self._reason: str = "stop"

    async def frames(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """All events as bytes; the first two come with the first delta."""
        async with aclosing(self.events(deltas)) as events:
            async for name, fields in events:
                yield self._frame(name, fields)

    async def run(self, deltas: AsyncGenerator[Delta, None]) -> ResponseObject:
        """The finished response, for answers that are not streamed."""
        async with aclosing(self.events(deltas)) as events:
            async for _ in events:
                pass
        return self.response

    async def events(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Event, None]:
        """Every event but its number."""
        begun = False
        async with aclosing(deltas) as stream:
            async for delta in stream:
                if not begun:
                    begun = True
                    yield "response.created", {"response": self.response}
                    yield "response.in_progress", {"response": self.response}
                for event in self._on(delta):
                    yield event

    def failed(self, error: PentadError) -> bytes:
        """The last event of a stream that broke."""
        self.fail(error)
        return self._frame("response.failed", {"response": self.response})

    def fail(self, error: PentadError) -> None:
        """Marks the response failed and tells `on_end`."""
        failure = ResponseFailure(code="server_error", message=str(error))
        self._change(status="failed", error=failure)
        self._on_end(self)

    def turns(self) -> list[Message]:
        """The output as turns that a later response may continue."""
        turns: list[Message] = []
        for item in self.response.output:
            if item["type"] == "message":
                text = "".join(part["text"] for part in item["content"])
                add_said(turns, Message(role="assistant", content=text))
            elif item["type"] == "reasoning":
                add_reasoning(turns, "".join(part["text"] for part in item["content"]))
            elif item["type"] == "function_call":
                name = self._shown.get((item.get("namespace"), item["name"]), item["name"])
                call = ToolCall(id=item["call_id"], name=name, arguments=item["arguments"])
                add_call(turns, call)
        return turns

    def _change(self, **fields: Any) -> None:
        self.response = msgspec.structs.replace(self.response, **fields)

    def _frame(self, name: str, fields: dict[str, Any]) -> bytes:
        number = self._number
        self._number += 1
        if name == "response.output_text.delta":
            return (
                b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
                b'"sequence_number":%d,"item_id":"%s","output_index":%d,"content_index":0,"delta":%s,'
                b'"logprobs":%s}\n\n'
            ) % (
                number,
                fields["item_id"].encode(),
                fields["output_index"],
                encode(fields["delta"]),
                encode(fields["logprobs"]),
            )
        return event_frame(name, {"type": name, "sequence_number": number, **fields})

    def _on(self, delta: Delta) -> Iterator[Event]:
        match delta:
            case TextDelta() if delta.text or delta.logprobs:
                yield from self._text(delta)
            case ToolCallDelta():
                yield from self._call(delta)
            case ChoiceDone():
                self._reason = finish_reason(delta.reason)
                yield from self._close("incomplete" if self._reason == "length" else "completed")
            case StreamDone():
                yield self._end(delta.usage)

    def _text(self, delta: TextDelta) -> Iterator[Event]:
        reasoning = delta.kind == "reasoning"
        if self._key != delta.kind:
            yield from self._open(delta.kind, _reasoning_item() if reasoning else _message_item())
            part = {"type": "reasoning_text", "text": ""} if reasoning else _text_part("", [])
            yield "response.content_part.added", {**self._place(), "content_index": 0, "part": part}
        self._pieces.append(delta.text)
        place = {**self._place(), "content_index": 0, "delta": delta.text}
        if reasoning:
            yield "response.reasoning_text.delta", place
        else:
            logprobs = logprob_content(delta.logprobs).content
            self._logprobs += logprobs
            yield "response.output_text.delta", {**place, "logprobs": logprobs}

    def _call(self, delta: ToolCallDelta) -> Iterator[Event]:
        if delta.id is not None:
            item = {
                "type": "function_call",
                "id": new_id("fc"),
                "call_id": delta.id,
                **self._function(delta.name or ""),
                "arguments": "",
                "status": "in_progress",
            }
            yield from self._open(("call", delta.index), item)
        if delta.arguments:
            self._pieces.append(delta.arguments)
            yield "response.function_call_arguments.delta", {**self._place(), "delta": delta.arguments}

    def _function(self, shown: str) -> dict[str, str]:
        """The fields that name a called function to the client."""
        namespace, name = self._called.get(shown, (None, shown))
        return {"name": name} if namespace is None else {"name": name, "namespace": namespace}

    def _place(self) -> dict[str, Any]:
        assert self._item is not None, "pieces belong to an open item"
        return {"item_id": self._item["id"], "output_index": len(self.response.output)}

    def _open(self, key: object, item: dict[str, Any]) -> Iterator[Event]:
        yield from self._close("completed")
        self._item, self._key, self._pieces, self._logprobs = item, key, [], []
        yield "response.output_item.added", {"output_index": len(self.response.output), "item": dict(item)}

    def _close(self, status: str) -> Iterator[Event]:
        item = self._item
        if item is None:
            return
        whole = "".join(self._pieces)
        place = self._place()
        if item["type"] == "function_call":
            item["arguments"] = whole
            yield "response.function_call_arguments.done", {**place, "arguments": whole}
        elif item["type"] == "reasoning":
            item["content"] = [{"type": "reasoning_text", "text": whole}]
            yield "response.reasoning_text.done", {**place, "content_index": 0, "text": whole}
            yield "response.content_part.done", {**place, "content_index": 0, "part": item["content"][0]}
        else:
            logprobs = msgspec.to_builtins(self._logprobs)
            part = _text_part(whole, logprobs)
            item["content"] = [part]
            done = {**place, "content_index": 0, "text": whole, "logprobs": logprobs}
            yield "response.output_text.done", done
            yield "response.content_part.done", {**place, "content_index": 0, "part": part}
        item["status"] = status
        self._change(output=[*self.response.output, item])
        self._item = self._key = None
        yield "response.output_item.done", {"output_index": place["output_index"], "item": item}

    def _end(self, usage: Usage) -> Event:
        cut = self._reason == "length"
        explained = self._explain(usage)
        self._change(
            status="incomplete" if cut else "completed",
            usage=response_usage(usage),
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if cut else None,
            pentad=msgspec.UNSET if explained is None else explained,
        )
        self._on_end(self)
        return f"response.{self.response.status}", {"response": self.response}


def _message_item() -> dict[str, Any]:
    return {
        "type": "message",
        "id": new_id("msg"),
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }


def _reasoning_item() -> dict[str, Any]:
    return {"type": "reasoning", "id": new_id("rs"), "summary": [], "content": [], "status": "in_progress"}


def _text_part(text: str, logprobs: list[Any]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
