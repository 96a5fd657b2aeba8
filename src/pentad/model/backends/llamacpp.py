"""LlamaCppBackend: the same requests answered by llama.cpp, through `llama-cpp-python` (an extra).

llama.cpp computes logits; everything else is ours: template, tokenizer, constraint, sampling, stop
rules and parsers. So the two backends differ in nothing but the kernels.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import ClassVar

from pentad.errors import BackendFailed, Incompatible, Overloaded, PentadError, Unavailable
from pentad.execution.backend import Capabilities, Delta, StreamDone
from pentad.execution.kv.cache import KVCache
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.sampling import draw
from pentad.execution.sequence import Sequence as TokenSequence
from pentad.model.backends.choices import open_choices, usage_of
from pentad.model.backends.codec import FORMATS, ChatCodec, draw_seed
from pentad.model.backends.llama_model import LlamaModel, TokenModel
from pentad.model.backends.preparation import prepare
from pentad.model.loading import ModelFiles
from pentad.model.tokenizer_facts import TokenizerFacts
from pentad.types import Clock, Request

MAX_WAITING = 64


class LlamaCppBackend:
    """Serves one GGUF model with llama.cpp, one request at a time, the others waiting in order.

    Args:
        files: the opened model; its tokenizer and template are used, its weights are not.
        model: computes the logits; closed together with this backend.
        name: the name it is served under; None takes the file's.
        context_length: tokens that prompt and answer may have together.
        tool_format: how the model writes tool calls, or `auto` to follow its chat template.
        reasoning_format: how it marks its reasoning, `auto` to follow its chat template, or `none`.
        stall_s: seconds without a token, while a request runs, before `check` complains.
        seeds: draws the seed of requests that give none.
        clock: of spans and records.
    """

    engine: ClassVar[str] = "llama.cpp"
    """What computes, in messages."""

    def __init__(
        self,
        files: ModelFiles,
        model: TokenModel,
        *,
        name: str | None = None,
        context_length: int,
        tool_format: str = "auto",
        reasoning_format: str = "auto",
        stall_s: float = 60.0,
        seeds: Callable[[], int] = draw_seed,
        clock: Clock = time.monotonic,
    ) -> None:
        self._model = model
        self._clock = clock
        self._stall_s = stall_s
        self.codec = ChatCodec(
            files,
            context_length=context_length,
            tool_format=tool_format,
            reasoning_format=reasoning_format,
            seeds=seeds,
            clock=clock,
        )
        self._capabilities = Capabilities(
            model=name or files.name,
            context_length=context_length,
            formats=FORMATS,
            logprobs=True,
            token_prompts=True,
            sampling=files.sampling,
        )
        self._turn = asyncio.Lock()
        self._in_use = threading.Lock()
        """Held by the thread that drives the model; the last word on there being one at a time."""
        self._waiting = 0
        self._running = False
        self._closed = False
        self._progress_s = clock()
        self._counts = {"requests_total": 0.0, "prompt_tokens_total": 0.0, "generation_tokens_total": 0.0}

    @classmethod
    def load(
        cls,
        files: ModelFiles,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        tool_format: str = "auto",
        reasoning_format: str = "auto",
    ) -> LlamaCppBackend:
        """The backend over llama.cpp itself; both formats as for the class.

        Raises MissingExtra without the extra, Incompatible for files that are no GGUF.
        """
        if files.format != "gguf":
            raise Incompatible(
                f"llama.cpp reads GGUF files only, model {files.name!r} is {files.format}",
                hint="serve it with the engine backend",
            )
        length = min(context_length or files.spec.context_length, files.spec.context_length)
        return cls(
            files,
            LlamaModel(str(files.path), context_length=length, threads=threads),
            context_length=length,
            tool_format=tool_format,
            reasoning_format=reasoning_format,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer as it is made. Closing the generator stops the computation at the next token.

        Raises:
            InvalidRequest, ContextLengthExceeded, Overloaded, Unavailable: before any delta.
            BackendFailed: llama.cpp, or following the output format, failed on the way.
        """
        prepared = await prepare(self.codec, request)
        for notice in prepared.notices:
            yield notice
        asked, choices = open_choices(self.codec, request, prepared)
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} requests are waiting, at most {MAX_WAITING} can")
        sent_s = self._clock()
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            self._refuse_if_closed()
            self._running, self._progress_s = True, self._clock()
            self._counts["requests_total"] += 1
            worker = _Worker(self._model, self._in_use, asked, self._clock, sent_s, self.engine)
            try:
                async for output in worker.outputs():
                    self._note(output)
                    for delta in choices[output.id].take(output):
                        yield delta
            finally:
                await worker.stop()
        finally:
            self._running = False
            self._turn.release()
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
        return {"running": float(self._running), "waiting": float(self._waiting), **self._counts}

    def check(self) -> str | None:
        idle_s = self._clock() - self._progress_s
        if self._running and idle_s > self._stall_s:
            return f"{self.engine} has made no token for {idle_s:.0f} s although a request runs"
        return None

    async def close(self) -> None:
        """Waits for the running request, refuses those behind it, frees the model."""
        self._closed = True
        async with self._turn:
            await asyncio.to_thread(self._close_model)

    def _close_model(self) -> None:
        with self._in_use:
            self._model.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable(f"the {self.engine} backend is closed", hint="try another server")

    def _note(self, output: StepOutput) -> None:
        self._progress_s = self._clock()
        self._counts["generation_tokens_total"] += len(output.drawn)
        if output.stats is not None:
            self._counts["prompt_tokens_total"] += output.stats.prompt_tokens


class _Worker:
    """Generates the choices of one request, one after the other, on a thread."""

    def __init__(
        self,
        model: TokenModel,
        in_use: threading.Lock,
        asked: Sequence[TokenRequest],
        clock: Clock,
        arrived_s: float,
        engine: str,
    ) -> None:
        self._engine = engine
        self._model = model
        self._in_use = in_use
        self._asked = asked
        self._clock = clock
        self._arrived_s = arrived_s
        self._cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[StepOutput | Exception | None] = asyncio.Queue()
        self._task = asyncio.ensure_future(asyncio.to_thread(self._run))

    async def outputs(self) -> AsyncGenerator[StepOutput, None]:
        """What is drawn, as it is drawn."""
        while (item := await self._queue.get()) is not None:
            if isinstance(item, PentadError):
                raise item
            if isinstance(item, Exception):
                raise BackendFailed(f"{self._engine} failed with {type(item).__name__}") from item
            yield item

    async def stop(self) -> None:
        """Returns when the thread has left the model alone."""
        self._cancelled.set()
        await asyncio.shield(self._task)

    def _put(self, item: StepOutput | Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def _run(self) -> None:
        try:
            with self._in_use:
                for request in self._asked:
                    self._generate(request)
            self._put(None)
        except Exception as error:  # handed to the consumer, who raises it
            self._put(error)

    def _generate(self, request: TokenRequest) -> None:
        # The engine's sequence holds the rules of sampling and ending; llama.cpp keeps its own cache.
        books = KVCache(1, 1, max_sequences=1, max_tokens=1, prefix_cache=False)
        seq = TokenSequence(request, 0, self._arrived_s, books)
        seq.admit(self._clock())
        finish = None
        while finish is None:
            computed = self._model.next_logits(seq.tokens, self._cancelled.is_set)
            if computed is None:
                self._put(StepOutput(id=seq.id, finish="cancelled", stats=seq.stats(self._clock())))
                return
            logits, known = computed
            drawn = draw(logits, seq.sample_row())
            if seq.first_token_s is None:
                seq.first_token_s = self._clock()
                seq.prompt_cached_tokens = known
            _, finish, raised = seq.extend((drawn,))
            if raised is not None:
                raise raised
            stats = seq.stats(self._clock()) if finish else None
            self._put(StepOutput(id=seq.id, drawn=(drawn,), finish=finish, stats=stats))
