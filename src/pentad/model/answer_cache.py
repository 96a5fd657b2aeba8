"""AnswerCache: whole answers to requests that come again word for word."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from pentad.execution.backend import Delta, NoticeDelta, StreamDone
from pentad.ranges import in_range
from pentad.types import Clock, Decision, Request, Usage

POLICY = "answer-cache"
_ASKED = (
    *("tenant", "cache_salt", "model", "adapter", "messages", "text", "token_ids", "continues", "tools"),
    *("shown_tools", "tool_choice", "format", "sampling", "template_options", "reasoning_tokens"),
)
"""What an answer depends on."""
_DELTA_BYTES = 200
"""Of a delta beside its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """One answer as it was streamed."""

    by: object
    """The backend that made it."""
    deltas: tuple[Delta, ...]
    usage: Usage
    size_bytes: int


class AnswerCache:
    """Keeps the answers that would be the same again, those used last first, within a number of bytes.

    An answer is the same again where nothing is drawn (temperature 0) or the draws are given by a seed. What
    has a data label or parts beside text is not kept, nor is an answer that a limit has cut. Tenants never
    see each other's. An adapter that takes another's place under its name is another backend, which gives no
    answer of the old; a model's file that changes must be served under another name.

    Source: Clipper (Crankshaw et al., NSDI'17, section 4.2): the prediction cache. Our difference: answers
    are streams, and least recent use in place of CLOCK.

    Args:
        most_bytes: of all answers together.
        clock: of the decisions.
    """

    def __init__(self, most_bytes: int, clock: Clock) -> None:
        in_range("answer_cache_bytes", most_bytes, least=1)
        self._most = most_bytes
        self._clock = clock
        self._kept: OrderedDict[bytes, KeptAnswer] = OrderedDict()
        self.held_bytes = 0
        self.hits = self.misses = 0

    def key(self, request: Request) -> bytes | None:
        """What names the request's answer; None where that is not kept."""
        drawn = request.sampling.temperature > 0 and request.sampling.seed is None
        if drawn or request.context.data_label is not None or request.media:
            return None
        asked = repr([getattr(request, name) for name in _ASKED])
        return hashlib.blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def find(self, key: bytes, backend: object) -> tuple[Delta, ...] | None:
        """That backend's answer once more, its usage saying that nothing was computed; None: not kept."""
        kept = self._kept.get(key)
        if kept is None or kept.by is not backend:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        decision = Decision(layer="model", policy=POLICY, subject="answer", chosen="kept", at_s=self._clock())
        usage = Usage(
            prompt_tokens=kept.usage.prompt_tokens,
            cached_tokens=kept.usage.prompt_tokens,
            completion_tokens=kept.usage.completion_tokens,
            reasoning_tokens=kept.usage.reasoning_tokens,
            decisions=(decision,),
        )
        return (*kept.deltas, StreamDone(usage=usage))

    async def noting(
        self, key: bytes, backend: object, answer: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[Delta, None]:
        """The same deltas; an answer that comes to its end is kept as that backend's."""
        deltas: list[Delta] = []
        size = 0
        async with aclosing(answer) as stream:
            async for delta in stream:
                if isinstance(delta, StreamDone):
                    if not any(one.subject == "limit" for one in delta.usage.decisions):
                        self._put(
                            key,
                            KeptAnswer(by=backend, deltas=tuple(deltas), usage=delta.usage, size_bytes=size),
                        )
                elif not isinstance(delta, NoticeDelta):
                    deltas.append(delta)
                    size += _DELTA_BYTES + len(repr(delta))
                yield delta

    def _put(self, key: bytes, answer: KeptAnswer) -> None:
        if answer.size_bytes > self._most:
            return
        if (old := self._kept.pop(key, None)) is not None:
            self.held_bytes -= old.size_bytes
        self._kept[key] = replace(answer, usage=replace(answer.usage, spans=(), decisions=()))
        self.held_bytes += answer.size_bytes
        while self.held_bytes > self._most:
            _, gone = self._kept.popitem(last=False)
            self.held_bytes -= gone.size_bytes
