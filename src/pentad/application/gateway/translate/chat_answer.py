"""Deltas as chat.completion.chunk events, and their fold as a chat.completion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from pentad.application.gateway.context import wire_usage
from pentad.application.gateway.schemas.chat import (
    AnswerCall,
    AnswerChoice,
    AnswerMessage,
    ChatAnswer,
    FunctionCall,
)
from pentad.application.gateway.translate.frames import (
    DONE,
    data_frame,
    encode,
    finish_reason,
    logprob_content,
)
from pentad.execution.backend import (
    Choice,
    ChoiceDone,
    Completion,
    Delta,
    NoticeDelta,
    PromptDelta,
    StreamDone,
    TextDelta,
    ToolCallDelta,
)
from pentad.types import Usage

Explain = Callable[[Usage], dict[str, Any] | None]
"""The `pentad` object of an answer, or None where it was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatChunks:
    """Writes the chunks of one streamed answer. Everything constant is encoded once."""

    id: str
    created: int
    model: str
    include_usage: bool
    explain: Explain
    functions: bool = False
    """Whether a call is written as `function_call`, for clients that sent `functions`."""

    async def frames(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """The events: role first, then pieces, finish reason, usage if asked, `[DONE]`."""
        head = self._head()
        tail = b',"usage":null}\n\n' if self.include_usage else b"}\n\n"
        opened: set[int] = set()
        async with aclosing(deltas) as stream:
            async for delta in stream:
                if isinstance(delta, StreamDone):
                    if end := self._usage(delta.usage):
                        yield end
                    continue
                if isinstance(delta, (NoticeDelta, PromptDelta)):
                    continue  # no part of a chat's answer
                index = delta.choice
                before = b'%s,"choices":[{"index":%d,"delta":' % (head, index)
                lead = b""
                if index not in opened:
                    opened.add(index)
                    role = b'{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
                    lead = before + role + tail
                yield lead + before + self._piece(delta) + tail
        yield DONE

    def _head(self) -> bytes:
        fields = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }
        return b"data: " + encode(fields)[:-1]

    def _usage(self, usage: Usage) -> bytes | None:
        explained = self.explain(usage)
        if not self.include_usage and explained is None:
            return None
        chunk: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [],
            "usage": wire_usage(usage),
        }
        if explained is not None:
            chunk["pentad"] = explained
        return data_frame(chunk)

    def _piece(self, delta: TextDelta | ToolCallDelta | ChoiceDone) -> bytes:
        """The rest of a choice after `"delta":`, closing the choice and the list."""
        if self.functions and isinstance(delta, ToolCallDelta):
            return _function_piece(delta)
        if self.functions and isinstance(delta, ChoiceDone) and delta.reason == "tool_calls":
            return b'{},"logprobs":null,"finish_reason":"function_call"}]'
        return _piece(delta)


def _function_piece(delta: ToolCallDelta) -> bytes:
    name = {} if delta.name is None else {"name": delta.name}
    return b'{"function_call":%s},"logprobs":null,"finish_reason":null}]' % encode(
        {**name, "arguments": delta.arguments}
    )


def _piece(delta: TextDelta | ToolCallDelta | ChoiceDone) -> bytes:
    match delta:
        case TextDelta():
            text = encode(delta.text)
            if delta.kind == "reasoning":
                body = b'{"reasoning_content":%s,"reasoning":%s}' % (text, text)
            else:
                body = b'{"content":%s}' % text
            logprobs = encode(logprob_content(delta.logprobs)) if delta.logprobs else b"null"
            return b'%s,"logprobs":%s,"finish_reason":null}]' % (body, logprobs)
        case ToolCallDelta():
            call: dict[str, Any] = {"index": delta.index}
            function: dict[str, Any] = {"arguments": delta.arguments}
            if delta.id is not None:
                call |= {"id": delta.id, "type": "function"}
                function = {"name": delta.name, "arguments": delta.arguments}
            call["function"] = function
            return b'{"tool_calls":[%s]},"logprobs":null,"finish_reason":null}]' % encode(call)
        case ChoiceDone():
            stop = b"" if delta.stop is None else b',"stop_reason":%s' % encode(delta.stop)
            return b'{},"logprobs":null,"finish_reason":%s%s}]' % (encode(finish_reason(delta.reason)), stop)


def chat_answer(
    completion: Completion,
    *,
    id: str,
    created: int,
    model: str,
    explain: Explain,
    functions: bool = False,
    logprobs: bool = False,
) -> ChatAnswer:
    """The plain answer.

    Args:
        completion: what came up.
        id: of the answer; created: Unix time; model: the name that it carries.
        explain: makes its `pentad` object.
        functions: whether a call is written as `function_call`.
        logprobs: whether log probabilities were asked for: an empty answer has an empty list of them.
    """
    explained = explain(completion.usage)
    return ChatAnswer(
        id=id,
        created=created,
        model=model,
        choices=[
            _choice(choice, index, functions=functions, logprobs=logprobs)
            for index, choice in enumerate(completion.choices)
        ],
        usage=wire_usage(completion.usage),
        pentad=UNSET if explained is None else explained,
    )


def _choice(choice: Choice, index: int, *, functions: bool, logprobs: bool) -> AnswerChoice:
    calls = [
        AnswerCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
        for call in choice.message.tool_calls
    ]
    content = choice.message.content
    return AnswerChoice(
        index=index,
        message=AnswerMessage(
            content=None if calls and not content else content,
            tool_calls=UNSET if functions else calls or UNSET,
            function_call=calls[0].function if functions and calls else UNSET,
            reasoning_content=choice.reasoning or UNSET,
            reasoning=choice.reasoning or UNSET,
        ),
        finish_reason="function_call" if functions and calls else finish_reason(choice.reason),
        logprobs=logprob_content(choice.logprobs) if choice.logprobs or logprobs else None,
        stop_reason=UNSET if choice.stop is None else choice.stop,
    )
