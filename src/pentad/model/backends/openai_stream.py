"""A remote stream of chunks as our deltas, and its end as usage. What the endpoint sends is not trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pentad.errors import BackendFailed
from pentad.execution.backend import ChoiceDone, Delta, TextDelta, TokenLogprob
from pentad.model.backends.openai_calls import CallAssembler
from pentad.model.backends.openai_text import TextCleaner, cleaned, parts
from pentad.model.backends.openai_usage import MAX_BYTES_PER_TOKEN, prompt_bytes, usage_of
from pentad.types import Decision, FinishReason, Request, Usage

if TYPE_CHECKING:
    from pentad.model.backends.endpoint import Endpoint

REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}
_SLACK_BYTES = 1024
"""Answers so short may have tokens that are longer than the average."""
_SLACK_PIECES = 64
"""Pieces beyond one per token: the role, names of calls, halves of characters."""

Kind = Literal["text", "reasoning"]


@dataclass(slots=True)
class _Reading:
    """One choice."""

    calls: CallAssembler
    text: TextCleaner = field(default_factory=TextCleaner)
    reasoning: TextCleaner = field(default_factory=TextCleaner)
    size_bytes: int = 0
    pieces: int = 0
    reason: FinishReason | None = None


class StreamReader:
    """Reads the chunks of one answer.

    Invariant: no choice gets more than what `max_tokens` tokens can hold; what is beyond is cut, and
    the choice ends with `length`.

    Args:
        request: what was asked.
        endpoint: who answers.
    """

    def __init__(self, request: Request, endpoint: Endpoint) -> None:
        self._request = request
        self._most_tokens = request.sampling.max_tokens or endpoint.context_length
        self._choices = [_Reading(CallAssembler(request.id, i)) for i in range(request.sampling.n)]
        self._usage: Mapping[str, Any] | None = None
        self.overrun = False
        """Whether the endpoint went on beyond what was asked for: nothing more need be read."""

    def read(self, chunk: Any) -> Iterator[Delta]:
        """The deltas of one chunk, decoded JSON."""
        if not isinstance(chunk, Mapping):
            raise BackendFailed("the endpoint sent an event that is no JSON object")
        if isinstance(usage := chunk.get("usage"), Mapping):
            self._usage = usage
        for choice in chunk.get("choices") or ():
            index = choice.get("index") or 0
            if not isinstance(index, int) or not 0 <= index < len(self._choices):
                raise BackendFailed(f"the endpoint sent choice {str(index)[:40]}, which was not asked")
            reading = self._choices[index]
            for delta in self._pieces(choice, index, reading):
                if not self._fits(reading, delta):
                    self.overrun = True
                    return
                yield delta
            if finish := choice.get("finish_reason"):
                reading.reason = self._reason(finish)

    def finish(self) -> tuple[Usage, list[Delta]]:
        """The usage and the ends of all choices. Raises BackendFailed when the answer was cut off."""
        missing = [i for i, reading in enumerate(self._choices) if reading.reason is None]
        if missing and not self.overrun:
            raise BackendFailed(
                f"the endpoint ended its answer before choice {missing[0]} was complete", hint="try again"
            )
        ends: list[Delta] = []
        for i, reading in enumerate(self._choices):
            if rest := reading.text.flush():
                ends.append(TextDelta(text=rest, choice=i))
            reason = reading.reason or "length"
            # Many endpoints say `stop` after a call.
            called = reason == "stop" and bool(reading.calls)
            ends.append(ChoiceDone(reason="tool_calls" if called else reason, choice=i))
        return self._read_usage(), ends

    def _pieces(self, choice: Mapping[str, Any], index: int, reading: _Reading) -> Iterator[Delta]:
        if self._request.text is not None:
            if text := choice.get("text"):
                yield TextDelta(text=reading.text.push(str(text)), choice=index)
            return
        delta = choice.get("delta") or {}
        reasoning = delta.get("reasoning") or delta.get("reasoning_content")
        said = [(text, True) for text, _ in parts(reasoning)] + parts(delta.get("content"))
        logprobs = _logprobs(choice.get("logprobs"))
        for text, is_reasoning in said:
            kind: Kind = "reasoning" if is_reasoning else "text"
            piece = (reading.reasoning if is_reasoning else reading.text).push(text)
            if piece:
                own = () if is_reasoning else logprobs
                yield TextDelta(text=piece, choice=index, kind=kind, logprobs=own)
                logprobs = logprobs if is_reasoning else ()
        if logprobs:
            yield TextDelta(text="", choice=index, logprobs=logprobs)
        for call in delta.get("tool_calls") or ():
            yield reading.calls.push(call)

    def _fits(self, reading: _Reading, delta: Delta) -> bool:
        """Counts a piece; whether the choice still is within what its tokens can hold."""
        if isinstance(delta, TextDelta):
            reading.size_bytes += len(delta.text.encode())
        else:
            reading.size_bytes += len(getattr(delta, "arguments", "").encode())
        reading.pieces += 1
        return (
            reading.size_bytes <= self._most_tokens * MAX_BYTES_PER_TOKEN + _SLACK_BYTES
            and reading.pieces <= self._most_tokens + _SLACK_PIECES
        )

    def _reason(self, reason: Any) -> FinishReason:
        if reason not in REASONS:
            raise BackendFailed(
                f"the endpoint stopped the answer with {str(reason)[:40]!r}",
                hint="change the prompt or the model",
            )
        return REASONS[reason]

    def _read_usage(self) -> Usage:
        most = self._most_tokens * len(self._choices)
        usage = usage_of(
            self._usage,
            prompt_bytes=prompt_bytes(self._request),
            answer_bytes=sum(reading.size_bytes for reading in self._choices),
            most_answer_tokens=most,
        )
        if not self.overrun:
            return usage
        cut = Decision(
            layer="model",
            policy="max_tokens",
            subject="limit",
            chosen="the answer was cut",
            constraint=f"the endpoint sent more than {self._most_tokens} tokens can hold",
        )
        return replace(usage, completion_tokens=most, decisions=(*usage.decisions, cut))


def _logprobs(entries: Any) -> tuple[TokenLogprob, ...]:
    content = (entries.get("content") if isinstance(entries, Mapping) else None) or ()
    return tuple(
        TokenLogprob(
            text=cleaned(entry["token"]),
            data=_data(entry),
            logprob=_number(entry["logprob"]),
            alternatives=tuple(
                (cleaned(top["token"]), _data(top), _number(top["logprob"]))
                for top in entry.get("top_logprobs") or ()
            ),
        )
        for entry in content
    )


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise BackendFailed(f"the endpoint sent the log probability {number}")
    return number


def _data(entry: Mapping[str, Any]) -> bytes:
    raw = entry.get("bytes")
    return bytes(raw) if raw is not None else cleaned(entry["token"]).encode()
