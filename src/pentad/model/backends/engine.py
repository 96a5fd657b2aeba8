"""EngineBackend: a Request answered by our own engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from pentad.errors import Unavailable
from pentad.execution.backend import Capabilities, Delta, StreamDone
from pentad.execution.loop import EngineDriver
from pentad.execution.request import StepOutput, TokenRequest
from pentad.model.adapter_desk import AdapterDesk
from pentad.model.backends.choices import open_choices, usage_of
from pentad.model.backends.codec import FORMATS, ChatCodec, draw_seed
from pentad.model.backends.preparation import prepare
from pentad.model.loading import ModelFiles
from pentad.model.matchers import GrammarHost
from pentad.model.media import MediaEncoder
from pentad.model.tokenizer_facts import TokenizerFacts
from pentad.types import Clock, Request


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
        reasoning_format: how it marks its reasoning, `auto` to follow its chat template, or `none`.
        drain_s: how long `close` lets running requests finish.
        seeds: draws the seed of requests that give none.
        grammars: where they are compiled; None compiles them in this process.
        encoder: makes input embeddings of parts that are no text; None where the model takes none.
    """

    def __init__(
        self,
        files: ModelFiles,
        loop: EngineDriver,
        *,
        model: str | None = None,
        context_length: int | None = None,
        tool_format: str = "auto",
        reasoning_format: str = "auto",
        drain_s: float = 5.0,
        seeds: Callable[[], int] = draw_seed,
        grammars: GrammarHost | None = None,
        encoder: MediaEncoder | None = None,
    ) -> None:
        possible = loop.max_sequence_tokens
        self.adapters: AdapterDesk | None = None
        """Where adapters are handed in while it runs; None where that is nowhere."""
        self._loop = loop
        self._drain_s = drain_s
        self._clock = loop.clock
        self.codec = ChatCodec(
            files,
            context_length=min(possible, context_length or possible),
            tool_format=tool_format,
            reasoning_format=reasoning_format,
            seeds=seeds,
            clock=self._clock,
            grammars=grammars,
            encoder=encoder,
        )
        self._capabilities = Capabilities(
            model=model or files.name,
            context_length=self.codec.context_length,
            formats=FORMATS,
            logprobs=True,
            token_prompts=True,
            media=frozenset() if encoder is None else encoder.kinds,
            sampling=files.sampling,
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
        self._loop.refuse_if_full()  # before anything is made of the request
        prepared = await prepare(self.codec, request)
        for notice in prepared.notices:
            yield notice
        asked, choices = open_choices(self.codec, request, prepared, elsewhere=self._loop.elsewhere)
        sent_s = self._clock()
        # The loop's stream is an async generator; its annotation only promises iteration.
        outputs = cast("AsyncGenerator[StepOutput, None]", self._loop.generate(asked))
        async with aclosing(outputs):
            async for output in outputs:
                for delta in choices[output.id].take(output):
                    yield delta
        yield StreamDone(usage=usage_of(prepared, list(choices.values()), sent_s, self._clock()))

    def count_tokens(self, request: Request) -> int:
        """Prompt tokens of the request, tools and template included."""
        self.codec.refuse_by_size(request)
        return len(self.codec.prompt(request))

    def prompt_text(self, request: Request) -> str:
        """The prompt as the model sees it, control tokens spelled out."""
        return self.codec.prompt_text(request)

    def tokenize(self, text: str, *, prefix: bool = False) -> list[int]:
        """See TokenCodec."""
        return self.codec.tokenize(text, prefix=prefix)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        return self.codec.detokenize(ids)

    def tokenizer_facts(self) -> TokenizerFacts:
        """See TokenCodec."""
        return self.codec.facts

    def stats(self) -> dict[str, float]:
        """The engine's gauges and counters."""
        return self._loop.stats()

    def check(self) -> str | None:
        """None while the engine is healthy; else the reason."""
        return self._loop.check()

    async def close(self) -> None:
        """Lets running requests finish for `drain_s`, cancels the rest, closes the engine."""
        await self._loop.close(self._drain_s)


class NoEngine:
    """An EngineDriver for a backend that only reads: its tokenizer and template, without weights."""

    elsewhere = False

    def __init__(self, clock: Clock, max_sequence_tokens: int) -> None:
        self.clock = clock
        self.max_sequence_tokens = max_sequence_tokens

    def refuse_if_full(self) -> None:
        """Raises Unavailable: nothing is computed here."""
        raise Unavailable("the model is not loaded", hint="try again")

    def generate(self, requests: Sequence[TokenRequest]) -> AsyncIterator[StepOutput]:
        """Raises Unavailable."""
        raise Unavailable(f"the model is not loaded for {len(requests)} requests", hint="try again")

    def check(self) -> str | None:
        """See EngineDriver."""
        return None

    def stats(self) -> dict[str, float]:
        """See EngineDriver."""
        return {}

    async def close(self, drain_s: float) -> None:
        """Nothing is open."""
