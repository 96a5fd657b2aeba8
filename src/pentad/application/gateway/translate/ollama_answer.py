"""Deltas as lines of JSON, and their fold as one, as Ollama's clients read them."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from pentad.application.gateway.schemas.ollama import (
    AnswerCalled,
    AnswerFunction,
    OllamaAnswer,
    OllamaAnswerMessage,
)
from pentad.application.gateway.translate.frames import encode, finish_reason
from pentad.execution.backend import ChoiceDone, Completion, Delta, StreamDone, TextDelta, ToolCallDelta
from pentad.model.backends.pooled import LOAD_SPAN
from pentad.types import Clock, FinishReason, Usage

_NS = 1_000_000_000
_PROMPT = ("queue", "prefill")


def now_text() -> str:
    """The present, as Ollama writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def line(value: Any) -> bytes:
    """One line of a stream."""
    return encode(value) + b"\n"


@dataclass(slots=True, kw_only=True)
class OllamaLines:
    """Writes one answer, in lines or as one.

    Tool calls are told whole: a client reads their arguments as an object.

    Args:
        model: the name that it carries.
        chat: whether it is a message; else a completion.
        arrived_s: when the request came, on `clock`.
    """

    model: str
    chat: bool
    arrived_s: float
    clock: Clock
    _calls: dict[int, tuple[str, list[str]]] = field(default_factory=dict)
    _reason: FinishReason = "stop"

    async def frames(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """The lines: pieces of text, calls, and last the one with `done` and the durations."""
        async with aclosing(deltas) as stream:
            async for delta in stream:
                for answer in self._answers(delta):
                    yield line(answer)

    def _answers(self, delta: Delta) -> Iterator[OllamaAnswer]:
        match delta:
            case TextDelta(kind="reasoning"):
                yield self._answer(thinking=delta.text)
            case TextDelta():
                yield self._answer(delta.text)
            case ToolCallDelta():
                if delta.name is not None:
                    self._calls[delta.index] = (delta.name, [])
                self._calls[delta.index][1].append(delta.arguments)
            case ChoiceDone():
                self._reason = delta.reason
                if self._calls:
                    calls = [(name, "".join(pieces)) for name, pieces in self._calls.values()]
                    yield self._answer(calls=calls)
            case StreamDone():
                yield self._done(self._answer(), self._reason, delta.usage)

    def whole(self, completion: Completion) -> OllamaAnswer:
        """The answer in one piece."""
        choice = completion.choices[0]
        calls = [(call.name, call.arguments) for call in choice.message.tool_calls]
        answer = self._answer(choice.message.content, thinking=choice.reasoning, calls=calls)
        return self._done(answer, choice.reason, completion.usage)

    def only(self, reason: str, load_s: float) -> OllamaAnswer:
        """The answer to a request that had nothing to be answered: its model was loaded, or unloaded."""
        answer = self._answer()
        answer.done, answer.done_reason = True, reason
        answer.total_duration = _ns(self.clock() - self.arrived_s)
        answer.load_duration = _ns(load_s)
        return answer

    def _answer(
        self, text: str = "", *, thinking: str = "", calls: list[tuple[str, str]] | None = None
    ) -> OllamaAnswer:
        answer = OllamaAnswer(model=self.model, created_at=now_text())
        if self.chat:
            answer.message = OllamaAnswerMessage(
                content=text,
                thinking=thinking or UNSET,
                tool_calls=[_called(*call) for call in calls or ()] or UNSET,
            )
        else:
            answer.response, answer.thinking = text, thinking or UNSET
        return answer

    def _done(self, answer: OllamaAnswer, reason: FinishReason, usage: Usage) -> OllamaAnswer:
        seconds: dict[str, float] = {}
        for span in usage.spans:
            seconds[span.name] = seconds.get(span.name, 0.0) + span.end_s - span.start_s
        written = finish_reason(reason)
        answer.done, answer.done_reason = True, "length" if written == "length" else "stop"
        answer.total_duration = _ns(self.clock() - self.arrived_s)
        answer.load_duration = _ns(seconds.get(LOAD_SPAN, 0.0))
        answer.prompt_eval_count = usage.prompt_tokens
        answer.prompt_eval_duration = _ns(sum(seconds.get(name, 0.0) for name in _PROMPT))
        answer.eval_count = usage.completion_tokens
        answer.eval_duration = _ns(seconds.get("decode", 0.0))
        return answer


def _ns(seconds: float) -> int:
    return int(seconds * _NS)


def _called(name: str, arguments: str) -> AnswerCalled:
    """A call, its arguments as the object that they spell."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:  # an answer that was cut within a call
        value = {}
    return AnswerCalled(
        function=AnswerFunction(name=name, arguments=value if isinstance(value, dict) else {})
    )
