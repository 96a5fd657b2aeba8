"""EngineBackend: a Request answered by our own engine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from pentad.execution.backend import Capabilities, ChoiceDone, Delta, StreamDone
from pentad.execution.loop import EngineLoop
from pentad.execution.request import SequenceStats, StepOutput, TokenRequest
from pentad.model.backends.codec import ChatCodec, Prepared
from pentad.model.backends.parsing import OutputParser
from pentad.model.backends.text import TextStream
from pentad.model.loading import ModelFiles
from pentad.types import FinishReason, Layer, Request, Span, Usage

FORMATS = frozenset({"text", "json_object", "json_schema", "regex", "choice", "grammar"})


def draw_seed() -> int:
    """A fresh seed for a request that gives none."""
    return secrets.randbits(63)


class _Sequence:
    """What this backend keeps of one choice while it is generated."""

    __slots__ = ("choice", "engine_detokenizes", "parser", "reasoning_tokens", "stats", "text")

    def __init__(self, choice: int, text: TextStream, parser: OutputParser, engine_detokenizes: bool) -> None:
        self.choice = choice
        self.text = text
        self.parser = parser
        self.engine_detokenizes = engine_detokenizes
        self.reasoning_tokens = 0
        self.stats: SequenceStats | None = None

    def take(self, output: StepOutput) -> list[Delta]:
        """The deltas of one engine output; the last one of a sequence ends its choice."""
        if not self.engine_detokenizes:
            for drawn in output.drawn:
                self.text.accept(drawn)
        if self.parser.thinking:
            self.reasoning_tokens += len(output.drawn)
        deltas: list[Delta] = []
        if output.drawn:
            deltas += self.parser.feed(self.text.take(len(output.drawn)))
        if output.finish is not None:
            self.stats = output.stats
            deltas += self.parser.feed(self.text.finish())
            deltas += self.parser.finish()
            deltas.append(
                ChoiceDone(reason=self._reason(output.finish), choice=self.choice, stop=self.text.stop)
            )
        return deltas

    def _reason(self, finish: FinishReason) -> FinishReason:
        return "tool_calls" if finish == "stop" and self.parser.made_calls else finish


class EngineBackend:
    """Serves one model with our engine: template, tokens, constraint, engine, text, deltas.

    A request with n choices becomes n sequences that share their prompt's blocks. With stop
    strings the engine's thread makes the text, so that a sequence ends with the token that
    completes one; without, the consumer does, off the engine's critical path.

    Args:
        files: the opened model.
        loop: the engine that runs it; closed together with this backend.
        model: the name it is served under; None takes the file's.
        context_length: an upper bound on prompt and answer together; None takes what the engine can hold.
        tool_format: how the model writes tool calls, or `auto` to follow its chat template.
        drain_s: how long `close` lets running requests finish.
        seeds: draws the seed of requests that give none.
    """

    def __init__(
        self,
        files: ModelFiles,
        loop: EngineLoop,
        *,
        model: str | None = None,
        context_length: int | None = None,
        tool_format: str = "auto",
        drain_s: float = 5.0,
        seeds: Callable[[], int] = draw_seed,
    ) -> None:
        possible = loop.engine.max_sequence_tokens
        self._loop = loop
        self._drain_s = drain_s
        self._clock = loop.engine.clock
        self.codec = ChatCodec(
            files,
            context_length=min(possible, context_length or possible),
            tool_format=tool_format,
            seeds=seeds,
            clock=self._clock,
        )
        self._capabilities = Capabilities(
            model=model or files.name,
            context_length=self.codec.context_length,
            formats=FORMATS,
            logprobs=True,
            token_prompts=True,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer as it is made. Closing the generator cancels all choices within two steps.

        Raises:
            InvalidRequest, ContextLengthExceeded, Overloaded, Unavailable: before any delta.
            BackendFailed: the runner, or following the output format, failed on the way.
        """
        # Off the event loop: a long prompt takes a while to tokenize, a hostile template to be stopped.
        prepared = await asyncio.to_thread(self.codec.prepare, request)
        sequences: dict[str, _Sequence] = {}
        tokens: list[TokenRequest] = []
        watched = bool(request.sampling.stop)
        for choice in range(request.sampling.n):
            text = self.codec.text_stream(request)
            asked = self._token_request(request, prepared, choice, text if watched else None)
            sequences[asked.id] = _Sequence(
                choice, text, self.codec.parser(request, prepared, choice), watched
            )
            tokens.append(asked)
        sent_s = self._clock()
        # The loop's stream is an async generator; its annotation only promises iteration.
        outputs = cast("AsyncGenerator[StepOutput, None]", self._loop.generate(tokens))
        async with aclosing(outputs):
            async for output in outputs:
                for delta in sequences[output.id].take(output):
                    yield delta
        yield StreamDone(usage=self._usage(prepared, list(sequences.values()), sent_s))

    def count_tokens(self, request: Request) -> int:
        """Prompt tokens of the request, tools and template included."""
        return len(self.codec.prompt(request))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of raw text; special-token text becomes the special token."""
        return self.codec.tokenize(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        return self.codec.detokenize(ids)

    def stats(self) -> dict[str, float]:
        """The engine's gauges and counters."""
        return self._loop.stats()

    def check(self) -> str | None:
        """None while the engine is healthy; else the reason."""
        return self._loop.check()

    async def close(self) -> None:
        """Lets running requests finish for `drain_s`, cancels the rest, closes the engine."""
        await self._loop.close(self._drain_s)

    def _token_request(
        self, request: Request, prepared: Prepared, choice: int, watcher: TextStream | None
    ) -> TokenRequest:
        return TokenRequest(
            id=f"{request.id}/{choice}",
            prompt=prepared.prompt,
            sampling=request.sampling,
            max_tokens=prepared.max_tokens,
            end_tokens=self.codec.end_tokens,
            choice=choice,
            seed=prepared.seed,
            tenant=request.tenant,
            cache_salt=request.cache_salt,
            priority=request.priority,
            context=request.context,
            constraint=prepared.constraints[choice],
            watcher=watcher,
        )

    def _usage(self, prepared: Prepared, sequences: Sequence[_Sequence], sent_s: float) -> Usage:
        """The prompt counts once, whatever the number of choices; cached is what the first one found."""
        stats = [sequence.stats for sequence in sequences if sequence.stats is not None]
        decisions = dict.fromkeys(decision for entry in stats for decision in entry.decisions)
        return Usage(
            prompt_tokens=len(prepared.prompt),
            cached_tokens=min((entry.cached_tokens for entry in stats), default=0),
            completion_tokens=sum(entry.completion_tokens for entry in stats),
            reasoning_tokens=sum(sequence.reasoning_tokens for sequence in sequences),
            spans=(*prepared.spans, *engine_spans(stats, sent_s, self._clock())),
            decisions=(*prepared.decisions, *decisions),
        )


def engine_spans(stats: Sequence[SequenceStats], sent_s: float, end_s: float) -> tuple[Span, ...]:
    """Where the time went from handing the request to the engine until its last delta.

    The spans follow one another without gaps: waiting until the first choice was admitted, prefill
    until its first token, decoding until the last choice ended, and the rest making text of it.
    """
    scheduled_s = min((s.scheduled_s for s in stats if s.scheduled_s is not None), default=None)
    first_s = min((s.first_token_s for s in stats if s.first_token_s is not None), default=None)
    finished_s = max((s.finished_s for s in stats if s.finished_s is not None), default=None)
    marks: list[tuple[Layer, str, float | None]] = [
        ("resource", "queue", scheduled_s),
        ("execution", "prefill", first_s),
        ("execution", "decode", finished_s),
        ("model", "detokenize", end_s),
    ]
    spans: list[Span] = []
    at_s = sent_s
    for layer, name, until_s in marks:
        if until_s is not None:
            spans.append(Span(layer=layer, name=name, start_s=at_s, end_s=max(at_s, until_s)))
            at_s = max(at_s, until_s)
    return tuple(spans)
