"""A remote stream of chunks as our deltas, and its end as usage. What the endpoint sends is not trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pentad.errors import BackendFailed
from pentad.execution.backend import ChoiceDone, Delta, TextDelta, TokenLogprob, ToolCallDelta
from pentad.model.toolcalls import call_id
from pentad.types import Decision, FinishReason, Request, Usage

if TYPE_CHECKING:
    from pentad.model.backends.openai import Endpoint

REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
CHARS_PER_TOKEN = 4
"""For estimating usage where an endpoint reports none; a common rule of thumb for English."""


class StreamReader:
    """Reads the chunks of one answer.

    Args:
        request: what was asked.
        endpoint: who answers.
    """

    def __init__(self, request: Request, endpoint: Endpoint) -> None:
        self._request = request
        self._endpoint = endpoint
        self._calls: dict[int, dict[int, int]] = {}
        """Per choice: the endpoint's index of a call to ours."""
        self._done: dict[int, ChoiceDone] = {}
        self._usage: Any = None
        self._chars = 0

    def read(self, chunk: Any) -> Iterator[Delta]:
        """The deltas of one chunk."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            if not 0 <= choice.index < self._request.sampling.n:
                raise BackendFailed(f"the endpoint sent choice {choice.index}, which was not asked")
            yield from self._pieces(choice)
            if choice.finish_reason is not None:
                self._done[choice.index] = ChoiceDone(
                    reason=self._reason(choice.finish_reason), choice=choice.index
                )

    def finish(self) -> tuple[Usage, list[Delta]]:
        """The usage and the ends of all choices. Raises BackendFailed when the answer was cut off."""
        missing = [i for i in range(self._request.sampling.n) if i not in self._done]
        if missing:
            raise BackendFailed(
                f"the endpoint ended its answer before choice {missing[0]} was complete", hint="try again"
            )
        return self._read_usage(), [self._done[i] for i in sorted(self._done)]

    def _pieces(self, choice: Any) -> Iterator[Delta]:
        if self._request.text is not None:
            if choice.text:
                yield self._text(choice.text, choice.index)
            return
        delta = choice.delta
        reasoning = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None)
        if isinstance(reasoning, str) and reasoning:
            self._chars += len(reasoning)
            yield TextDelta(text=reasoning, choice=choice.index, kind="reasoning")
        logprobs = _logprobs(choice.logprobs)
        if delta.content or logprobs:
            yield self._text(delta.content or "", choice.index, logprobs)
        for call in delta.tool_calls or ():
            yield self._call(call, choice.index)

    def _text(self, text: str, choice: int, logprobs: tuple[TokenLogprob, ...] = ()) -> TextDelta:
        self._chars += len(text)
        return TextDelta(text=text, choice=choice, logprobs=logprobs)

    def _call(self, call: Any, choice: int) -> ToolCallDelta:
        known = self._calls.setdefault(choice, {})
        function = call.function
        arguments = (function.arguments if function else None) or ""
        self._chars += len(arguments)
        if call.index in known:
            return ToolCallDelta(index=known[call.index], choice=choice, arguments=arguments)
        index = known[call.index] = len(known)
        if not function or not function.name:
            raise BackendFailed("the endpoint sent a tool call without a name", hint="try another model")
        return ToolCallDelta(
            index=index,
            choice=choice,
            id=call.id or call_id(self._request.id, choice, index),
            name=function.name,
            arguments=arguments,
        )

    def _reason(self, reason: str) -> FinishReason:
        if reason not in REASONS:
            raise BackendFailed(
                f"the endpoint stopped the answer with {reason[:40]!r}", hint="change the prompt or the model"
            )
        return REASONS[reason]

    def _read_usage(self) -> Usage:
        """The endpoint's own count; an estimate, marked as such, where it sends none."""
        if self._usage is None:
            asked = [self._request.text or "", *(m.content for m in self._request.messages or ())]
            prompt, completion = sum(map(len, asked)) // CHARS_PER_TOKEN, self._chars // CHARS_PER_TOKEN
            estimated = Decision(
                layer="model",
                policy="characters",
                subject="usage",
                chosen="estimated",
                constraint="the endpoint reports no usage",
            )
            return self._priced(Usage(prompt_tokens=prompt, completion_tokens=completion), (estimated,))
        usage = self._usage
        details = getattr(usage, "prompt_tokens_details", None)
        answer = getattr(usage, "completion_tokens_details", None)
        return self._priced(
            Usage(
                prompt_tokens=_count(usage.prompt_tokens),
                cached_tokens=_count(getattr(details, "cached_tokens", None)),
                completion_tokens=_count(usage.completion_tokens),
                reasoning_tokens=_count(getattr(answer, "reasoning_tokens", None)),
            ),
            (),
        )

    def _priced(self, usage: Usage, decisions: tuple[Decision, ...]) -> Usage:
        endpoint = self._endpoint
        cost = usage.prompt_tokens * endpoint.prompt_price
        cost += usage.completion_tokens * endpoint.completion_price
        return replace(usage, cost=cost, decisions=decisions)


def _count(value: Any) -> int:
    """A token count as sent; a negative one would give budget back, so it is refused."""
    if value is None:
        return 0
    if not isinstance(value, int) or value < 0:
        raise BackendFailed(f"the endpoint reported {value!r} tokens", hint="do not trust its usage")
    return value


def _logprobs(entries: Any) -> tuple[TokenLogprob, ...]:
    content = getattr(entries, "content", None) or ()
    return tuple(
        TokenLogprob(
            text=entry.token,
            data=_data(entry),
            logprob=entry.logprob,
            alternatives=tuple((top.token, _data(top), top.logprob) for top in entry.top_logprobs or ()),
        )
        for entry in content
    )


def _data(entry: Any) -> bytes:
    return bytes(entry.bytes) if entry.bytes is not None else str(entry.token).encode("utf-8", "replace")
