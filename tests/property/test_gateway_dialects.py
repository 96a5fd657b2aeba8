"""Whatever a backend streams, in every dialect the streamed answer adds up to the plain one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pentad.application.gateway.schemas.responses import ResponseObject
from pentad.application.gateway.translate.chat_answer import ChatChunks, chat_answer
from pentad.application.gateway.translate.completions_answer import CompletionChunks, completion_answer
from pentad.application.gateway.translate.messages_answer import MessageEvents, messages_answer
from pentad.application.gateway.translate.responses_answer import ResponseBuilder
from pentad.execution.backend import ChoiceDone, Delta, StreamDone, TextDelta, ToolCallDelta, fold
from pentad.types import Usage

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
USAGE = Usage(prompt_tokens=7, cached_tokens=3, completion_tokens=5)


@st.composite
def one_choice(draw: st.DrawFn, choice: int = 0) -> list[Delta]:
    """Reasoning, text and calls, in pieces, as a backend orders them."""
    deltas: list[Delta] = [
        TextDelta(text=text, choice=choice, kind="reasoning") for text in draw(st.lists(TEXT, max_size=3))
    ]
    deltas += [TextDelta(text=text, choice=choice) for text in draw(st.lists(TEXT, max_size=5))]
    calls = draw(st.lists(st.dictionaries(TEXT, TEXT, max_size=3), max_size=3))
    for index, arguments in enumerate(calls):
        text = json.dumps(arguments)
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        deltas.append(ToolCallDelta(index=index, choice=choice, id=f"c{index}", name="tool"))
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            deltas.append(ToolCallDelta(index=index, choice=choice, arguments=text[start:end]))
    reason: Any = "tool_calls" if calls else draw(st.sampled_from(["stop", "length"]))
    deltas.append(ChoiceDone(reason=reason, choice=choice))
    return deltas


async def _stream(deltas: list[Delta]) -> AsyncGenerator[Delta, None]:
    for delta in deltas:
        yield delta


def events_of(frames: AsyncGenerator[bytes, None]) -> list[Any]:
    """The data of every event; each frame must be whole events of valid UTF-8."""

    async def run() -> list[Any]:
        found = []
        async for frame in frames:
            text = frame.decode("utf-8")
            assert text.endswith("\n\n")
            for event in text.removesuffix("\n\n").split("\n\n"):
                data = event.split("\n")[-1].removeprefix("data: ")
                found.append(None if data == "[DONE]" else json.loads(data))
        return found

    return asyncio.run(run())


@given(st.lists(one_choice(), min_size=1, max_size=3), st.booleans())
def test_chat_chunks_add_up(choices: list[list[Delta]], include_usage: bool) -> None:
    deltas: list[Any] = [replace(d, choice=i) for i, one in enumerate(choices) for d in one]  # type: ignore[call-arg]
    deltas.append(StreamDone(usage=USAGE))
    fields: Any = {"id": "i", "created": 1, "model": "m", "explain": lambda _: None}
    plain = msgspec.to_builtins(chat_answer(fold(deltas), **fields))
    *chunks, done = events_of(ChatChunks(include_usage=include_usage, **fields).frames(_stream(deltas)))
    assert done is None
    usage = chunks.pop() if include_usage else None
    if usage is not None:
        assert (usage["choices"], usage["usage"]) == ([], plain["usage"])
    for index, expected in enumerate(plain["choices"]):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert [one["finish_reason"] for one in mine] == [None] * (len(mine) - 1) + [
            expected["finish_reason"]
        ]
        assert _chat_message(mine) == expected["message"]


def _chat_message(chunks: list[Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "refusal": None, "content": ""}
    calls: dict[int, Any] = {}
    for chunk in chunks:
        delta = chunk["delta"]
        message["content"] += delta.get("content") or ""
        for name in ("reasoning", "reasoning_content"):
            if delta.get(name):
                message[name] = message.get(name, "") + delta[name]
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls[call["index"]] = {k: call[k] for k in ("id", "type", "function")}
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message["tool_calls"] = [calls[i] for i in sorted(calls)]
        message["content"] = message["content"] or None
    return message


@given(st.lists(TEXT, max_size=6))
def test_completion_chunks_add_up(texts: list[str]) -> None:
    deltas: list[Delta] = [TextDelta(text=text) for text in texts]
    deltas += [ChoiceDone(reason="stop"), StreamDone(usage=USAGE)]
    fields: Any = {"id": "i", "created": 1, "model": "m", "explain": lambda _: None}
    plain = completion_answer(fold(deltas), **fields)
    *chunks, _ = events_of(CompletionChunks(include_usage=False, **fields).frames(_stream(deltas)))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == plain.choices[0].text


@given(one_choice())
def test_message_events_add_up(choice: list[Delta]) -> None:
    deltas = [*choice, StreamDone(usage=USAGE)]
    plain = msgspec.to_builtins(messages_answer(fold(deltas), id="i", model="m", explain=lambda _: None))

    async def counted() -> int:
        return 7

    writer = MessageEvents(id="i", model="m", prompt_tokens=counted, explain=lambda _: None)
    events = events_of(writer.frames(_stream(deltas)))
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    blocks: list[Any] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            _grow(blocks[event["index"]], event["delta"])
    for block in blocks:
        text = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(text)
    assert blocks == plain["content"]
    end = next(event for event in events if event["type"] == "message_delta")
    assert end["delta"]["stop_reason"] == plain["stop_reason"]
    assert end["usage"] == plain["usage"]


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
    piece = delta[name[delta["type"]]]
    key = "json" if delta["type"] == "input_json_delta" else name[delta["type"]]
    block[key] += piece


@given(one_choice())
def test_response_events_add_up(choice: list[Delta]) -> None:
    deltas = [*choice, StreamDone(usage=USAGE)]
    events = events_of(_builder().frames(_stream(deltas)))
    plain = msgspec.to_builtins(asyncio.run(_builder().run(_stream(deltas))))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    final = events[-1]["response"]
    assert _anonymous(final["output"]) == _anonymous(plain["output"])
    assert (final["status"], final["usage"]) == (plain["status"], plain["usage"])
    pieces: dict[int, str] = {}
    done: dict[int, str] = {}
    for event in events:
        kind = event["type"]
        if kind.endswith(".delta"):
            pieces[event["output_index"]] = pieces.get(event["output_index"], "") + event["delta"]
        elif kind.endswith(("text.done", "arguments.done")):
            done[event["output_index"]] = event.get("text", event.get("arguments"))
    assert {i: text for i, text in done.items() if text} == {i: t for i, t in pieces.items() if t}
    folded = fold(deltas)
    texts = [p["text"] for item in final["output"] if item["type"] == "message" for p in item["content"]]
    assert "".join(texts) == folded.message.content


def _builder() -> ResponseBuilder:
    start = ResponseObject(
        id="r",
        created_at=1,
        model="m",
        status="in_progress",
        output=[],
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
        temperature=1,
        top_p=1,
        text={},
    )
    return ResponseBuilder(start, explain=lambda _: None, on_end=lambda _: None)


def _anonymous(output: list[Any]) -> list[Any]:
    return [{k: v for k, v in item.items() if k != "id"} for item in output]
