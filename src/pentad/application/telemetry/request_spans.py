"""Spans of requests that the gateway answers itself: generations and embeddings. Runs have their own."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from pentad.agent.run_places import Tracing
from pentad.application.telemetry.sender import SpanSender
from pentad.errors import PentadError
from pentad.execution.backend import ChoiceDone, Delta, NoticeDelta, PromptDelta, StreamDone, TextDelta
from pentad.tracing import spans as names
from pentad.tracing.context import CURRENT, TraceContext
from pentad.tracing.spans import Attribute, TraceSpan
from pentad.tracing.usage import decision_events, message, usage_attributes
from pentad.types import Clock, Request, Usage


@dataclass(slots=True)
class _Seen:
    """What has come of one request."""

    request: Request
    began_s: float
    began_at_s: float
    first_s: float | None = None
    usage: Usage = field(default_factory=Usage)
    reasons: list[str] = field(default_factory=list)
    texts: dict[int, list[str]] = field(default_factory=dict)


class RequestTracer:
    """Makes a span of each request.

    Args:
        tracing: what is recorded.
        sender: takes the spans.
        clock: monotonic, of the spans that usage tells. wall: seconds since 1970.
    """

    def __init__(
        self, tracing: Tracing, sender: SpanSender, *, clock: Clock = time.monotonic, wall: Clock = time.time
    ) -> None:
        self._tracing, self._sender = tracing, sender
        self._clock, self._wall = clock, wall

    def enter(self, traceparent: str | None) -> TraceContext | None:
        """The caller's place, which is that of all that follows in this task."""
        caller = TraceContext.parse(traceparent)
        CURRENT.set(caller)
        return caller

    async def generation(
        self, deltas: AsyncGenerator[Delta, None], request: Request, caller: TraceContext | None, asked: str
    ) -> AsyncGenerator[Delta, None]:
        """The same deltas; a span when they end, however they do.

        Args:
            request: with its model chosen. asked: the model that was named; "" where none was.
        """
        place = self._place(caller)
        # What this call asks of others, of a remote model first of all, is part of it. Set again by whoever
        # is next in this task.
        CURRENT.set(place)
        content = self._tracing.content and request.context.data_label is None
        seen = _Seen(request, self._clock(), self._wall())
        error: BaseException | None = None
        try:
            async with aclosing(deltas) as stream:
                async for delta in stream:
                    self._note(seen, delta, content)
                    yield delta
        except BaseException as found:
            error = found
            raise
        finally:
            if place.sampled:
                self._sender.send(self._generated(seen, place, caller, asked, error, content))

    def embedded(
        self, model: str, usage: Usage, caller: TraceContext | None, took_s: float, width: int
    ) -> None:
        """A span of an embedding that was answered just now."""
        place = self._place(caller)
        if not place.sampled:
            return
        now_s = self._wall()
        told: dict[str, Attribute] = {
            names.OPERATION: "embeddings",
            names.PROVIDER: names.SCOPE,
            names.REQUEST_MODEL: model,
            names.RESPONSE_MODEL: model,
            names.INPUT_TOKENS: usage.prompt_tokens,
            names.DIMENSIONS: width,
        }
        self._sender.send(
            TraceSpan(
                place=place,
                parent_id=None if caller is None else caller.span_id,
                name=f"embeddings {model}",
                kind="server",
                begin_s=now_s - took_s,
                end_s=now_s,
                attributes=told,
            )
        )

    def _place(self, caller: TraceContext | None) -> TraceContext:
        begun = self._tracing.begun()
        return begun if caller is None else caller.at(begun.span_id)

    def _note(self, seen: _Seen, delta: Delta, content: bool) -> None:
        if isinstance(delta, StreamDone):
            seen.usage = delta.usage
        elif isinstance(delta, ChoiceDone):
            seen.reasons.append(delta.reason)
        elif not isinstance(delta, NoticeDelta | PromptDelta):
            if seen.first_s is None:
                seen.first_s = self._clock()
            if content and isinstance(delta, TextDelta) and delta.kind == "text":
                seen.texts.setdefault(delta.choice, []).append(delta.text)

    def _generated(
        self,
        seen: _Seen,
        place: TraceContext,
        caller: TraceContext | None,
        asked: str,
        error: BaseException | None,
        content: bool,
    ) -> TraceSpan:
        request, usage = seen.request, seen.usage
        ended_s, ended_at_s = self._clock(), self._wall()
        operation = "chat" if request.messages is not None else "text_completion"
        told: dict[str, Attribute] = {
            names.OPERATION: operation,
            names.PROVIDER: names.SCOPE,
            names.REQUEST_MODEL: asked or request.model,
            names.RESPONSE_MODEL: request.model,
            names.RESPONSE_ID: request.id,
            names.REQUEST_TEMPERATURE: request.sampling.temperature,
            **usage_attributes(usage, began_s=seen.began_s, ended_s=ended_s),
        }
        if request.sampling.max_tokens is not None:
            told[names.REQUEST_MAX_TOKENS] = request.sampling.max_tokens
        if request.sampling.n > 1:
            told[names.REQUEST_CHOICES] = request.sampling.n
        if request.context.run_id:
            told[names.CONVERSATION] = request.context.run_id
        if seen.reasons:
            told[names.FINISH_REASONS] = tuple(seen.reasons)
        if seen.first_s is not None:
            told[names.FIRST_CHUNK_S] = seen.first_s - seen.began_s
        if content:
            said = [message(each.role, each.content) for each in request.messages or ()]
            told[names.INPUT_MESSAGES] = json.dumps(said)
            answered = [message("assistant", "".join(text)) for _, text in sorted(seen.texts.items())]
            told[names.OUTPUT_MESSAGES] = json.dumps(answered)
        if error is not None:
            told[names.ERROR_TYPE] = _called(error)
        failed = error is not None and not isinstance(error, GeneratorExit)
        return TraceSpan(
            place=place,
            parent_id=None if caller is None else caller.span_id,
            name=f"{operation} {request.model}",
            kind="server",
            begin_s=seen.began_at_s,
            end_s=max(seen.began_at_s, ended_at_s),
            attributes=told,
            events=tuple(decision_events(usage.decisions, at_s=ended_at_s, clock_s=ended_s)),
            error=(str(error) or type(error).__name__) if failed else None,
        )


def _called(error: BaseException) -> str:
    """The kind of an error; a client that went away has none of ours."""
    if isinstance(error, PentadError):
        return type(error).__name__
    return "cancelled" if not isinstance(error, Exception) else "internal"
