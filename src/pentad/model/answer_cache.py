"""AnswerCache: whole answers to requests that come again, word for word or provably to the same effect."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from pentad.execution.backend import ChoiceDone, Delta, NoticeDelta, StreamDone
from pentad.ranges import in_range
from pentad.types import Clock, Decision, Request, Sampling, Usage

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
    most_tokens: int | None
    """The limit that it was asked with."""

    @property
    def whole(self) -> bool:
        """Whether it is one choice that ended by itself."""
        ends = [delta.reason for delta in self.deltas if isinstance(delta, ChoiceDone)]
        return ends in (["stop"], ["tool_calls"])

    def holds_for(self, most_tokens: int | None) -> bool:
        """Whether the same answer comes with that limit: the same limit, or a lower one that a whole answer
        does not reach. A higher one may be refused where this was not."""
        if most_tokens == self.most_tokens:
            return True
        if most_tokens is None or (self.most_tokens is not None and most_tokens > self.most_tokens):
            return False
        # The token that ends an answer may not be among those that are counted.
        return self.whole and self.usage.completion_tokens + 1 < most_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an answer depends on: all but its limit as a digest, and the limit."""

    digest: bytes
    most_tokens: int | None

    @property
    def cut(self) -> bytes:
        """What names the answer where the limit may cut it."""
        return self.digest + repr(self.most_tokens).encode()


class AnswerCache:
    """Keeps the answers that would be the same again, those used last first, within a number of bytes.

    An answer is the same again where nothing is drawn (temperature 0) or the draws are given by a seed. Two
    requests are the same where they are equal word for word, or where what differs provably changes nothing:
    seed and cut-offs of draws that are not made, and a limit that the answer keeps anyway. What
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

    def key(self, request: Request) -> Asked | None:
        """What names the request's answer; None where that is not kept."""
        drawn = request.sampling.temperature > 0 and request.sampling.seed is None
        if drawn or request.context.data_label is not None or request.media:
            return None
        alike = replace(request, sampling=_alike(request.sampling))
        asked = repr([getattr(alike, name) for name in _ASKED])
        digest = hashlib.blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        return Asked(digest=digest, most_tokens=request.sampling.max_tokens)

    def find(self, key: Asked, backend: object) -> tuple[Delta, ...] | None:
        """That backend's answer once more, its usage saying that nothing was computed; None: not kept."""
        for name in (key.digest, key.cut):
            kept = self._kept.get(name)
            if kept is not None and kept.by is backend and kept.holds_for(key.most_tokens):
                break
        else:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(name)
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
        self, key: Asked, backend: object, answer: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[Delta, None]:
        """The same deltas; an answer that comes to its end is kept as that backend's."""
        deltas: list[Delta] = []
        size = 0
        async with aclosing(answer) as stream:
            async for delta in stream:
                if isinstance(delta, StreamDone):
                    if not any(one.subject == "limit" for one in delta.usage.decisions):
                        answered = KeptAnswer(
                            by=backend,
                            deltas=tuple(deltas),
                            usage=delta.usage,
                            size_bytes=size,
                            most_tokens=key.most_tokens,
                        )
                        self._put(key.digest if answered.whole else key.cut, answered)
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


def _alike(sampling: Sampling) -> Sampling:
    """The same for all samplings that provably give one answer, but for its limit.

    Without draws a seed means nothing, and no cut-off takes the most probable token away. Log probabilities
    are told behind the cut-offs, so where they are asked for nothing is left out.
    """
    alike = replace(sampling, max_tokens=None)
    if sampling.temperature > 0 or sampling.logprobs is not None or sampling.prompt_logprobs is not None:
        return alike
    return replace(alike, seed=None, top_p=1.0, top_k=0, min_p=0.0)
