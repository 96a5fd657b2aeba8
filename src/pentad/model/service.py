"""ModelService: what the layers above call to get text, tokens and vectors from models.

It holds the backends by the name that they are served under, lets the router choose one per
request, and passes the stream through. It keeps no state of its own.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import cast

import msgspec

from pentad.errors import Incompatible
from pentad.execution.backend import (
    Backend,
    Completion,
    Delta,
    Embedder,
    NoticeDelta,
    Reranker,
    StreamDone,
    collect,
)
from pentad.execution.hints import turn_hints
from pentad.model.answer_cache import AnswerCache
from pentad.model.backends.openai_usage import estimated_tokens, media_tokens, prompt_bytes
from pentad.model.backends.pooled import leased
from pentad.model.backends.sizes import prompt_chars
from pentad.model.cards import Embeddings, ModelCard, Scores
from pentad.model.codecs import PromptRenderer, TokenCodec
from pentad.model.control.alarms import Doubt
from pentad.model.energy import metered_energy
from pentad.model.objectives import fitted, marked, needs_count, refuse_unenforced, time_limit, within
from pentad.model.prices import Price
from pentad.model.routes import Routes
from pentad.model.routing import estimates
from pentad.model.routing.base import ModelRouter
from pentad.model.routing.cascade import Cascade, cascaded
from pentad.model.routing.learning import Learner, noted
from pentad.model.sampling_defaults import taken_defaults
from pentad.model.served import ServedModels
from pentad.model.standby import Standby, Watch
from pentad.model.tokenizer_facts import TokenizerFacts
from pentad.model.vectors import Texts, embedded
from pentad.model.workers import in_thread
from pentad.resource.fair_queue import FairQueue
from pentad.resource.request_energy import RequestEnergy
from pentad.types import Clock, Decision, Request, Span, Usage


class ModelService:
    """Serves requests with whichever backend the router chooses.

    Args:
        backends: name served under to backend; at least one.
        embedders: name served under to embedder.
        rerankers: name served under to reranker.
        router: chooses among `backends`.
        turns: name served under to who may go into its engine next; absent: whoever comes.
        prices: name served under to price; a model without one costs nothing.
        qualities: name served under to its quality, 0 to 1, where somebody says.
        default: the model of requests that name none, listed first; None takes the first backend.
        aliases: further name to the name of a model.
        answers: keeps answers for requests that come again; None: each is computed.
        energy: meters what requests to local models use of this machine's energy; None: nobody does.
        standbys: name served under to who answers where that model fails.
        clock: monotonic, for spans and decisions.
        wall_clock: Unix time, for the cards.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        embedders: Mapping[str, Embedder] | None = None,
        rerankers: Mapping[str, Reranker] | None = None,
        router: ModelRouter,
        turns: Mapping[str, FairQueue] | None = None,
        prices: Mapping[str, Price] | None = None,
        qualities: Mapping[str, float] | None = None,
        default: str | None = None,
        aliases: Mapping[str, str] | None = None,
        answers: AnswerCache | None = None,
        energy: RequestEnergy | None = None,
        standbys: Mapping[str, Standby] | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self.served = ServedModels(
            backends,
            embedders or {},
            rerankers or {},
            default=default,
            aliases=aliases or {},
            created_s=int(wall_clock()),
        )
        self.default = self.served.default
        self._backends = self.served.backends
        self._routes = Routes(
            self.served, router, prices=prices or {}, qualities=qualities or {}, clock=clock
        )
        self.enforces = router.enforces
        """Fields of an objective that the router keeps."""
        self._turns = dict(turns or {})
        self.outcomes = self._routes.outcomes
        """What came of answers, for controllers."""
        self._answers = answers
        self._energy = energy
        self._watches = {name: Watch(standby, clock) for name, standby in (standbys or {}).items()}
        self._clock = clock

    def under(self, router: ModelRouter) -> ModelService:
        """The same models under another router, which begins with the speeds known here and no outcomes.

        Backends are shared, so only one of the two is to be closed; answers are not kept.
        """
        other = copy.copy(self)
        other._routes, other.enforces = self._routes.under(router), router.enforces
        other.outcomes, other._answers = other._routes.outcomes, None
        return other

    def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer as it is made. Closing the generator cancels the request.

        The usage in the last delta carries the router's decision first, or that of a standby which answers.

        Raises, on first iteration:
            ModelNotFound, Incompatible, Forbidden: no backend may serve this request.
            BudgetExceeded, DeadlineExceeded: its limits leave no room for an answer; one that has begun
                ends with `length`, and a decision on the subject `limit` says where.
            InvalidRequest, Overloaded, BackendFailed: as the backend says.
        """
        ask = self._watched if self._watches else self._answer
        cascade = self._routes.router.cascade
        return ask(request) if cascade is None else self._cascaded(cascade, request)

    async def _cascaded(self, cascade: Cascade, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer of the first model that is sure enough."""
        await self.prepare(request)
        answer = cascaded(
            cascade,
            self.routed(request),
            self._watched if self._watches else self._answer,
            partial(self._routes.instead, request),
            logprobs=lambda name: self._backends[name].capabilities.logprobs,
            clock=self._clock,
        )
        async with aclosing(answer) as deltas:
            async for delta in deltas:
                yield delta

    async def _watched(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer of the model, or of its standby."""
        await self.prepare(request)
        asked, request = request, self.routed(request)
        watch = self._watches.get(request.model)
        if watch is None:
            answer = self._answer(request)
        else:
            answer = watch.answer(request, self._routes.instead(asked, watch.standby.model), self._answer)
        async with aclosing(answer) as deltas:
            async for delta in deltas:
                yield delta

    async def _answer(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer of the model that the router chooses, with what is told of it."""
        started_s = self._clock()
        await self.prepare(request)
        request, backend, decision = self._route(request)
        refuse_unenforced(request.context.objective, self._routes.router.enforced(decision))
        taken = taken_defaults(request.sampling, backend.capabilities.sampling, started_s)
        span = Span(layer="model", name="route", start_s=started_s, end_s=self._clock())
        key = None if self._answers is None else self._answers.key(request)
        if self._answers is not None and key is not None:
            kept = self._answers.find(key, backend)
            if kept is not None:
                for one in kept:
                    if isinstance(one, StreamDone):
                        decided = (decision, *taken, *one.usage.decisions)
                        one = StreamDone(usage=replace(one.usage, spans=(span,), decisions=decided))
                    yield one
                return
        answer = self._admitted(backend, request)
        if self._energy is not None and not backend.capabilities.remote:
            answer = metered_energy(answer, self._energy, estimates.prompt_tokens(request))
        if (limit := time_limit(request.context)) is not None:
            answer = within(answer, limit, request, partial(self._count_partial, backend))
        if self._answers is not None and key is not None:
            answer = self._answers.noting(key, backend, answer)
        if (learner := self._routes.router.learner(request)) is not None:
            answer = noted(answer, partial(self._note, learner, request))
        first_s: float | None = None
        self.outcomes.begun(request, started_s)
        async with aclosing(self._followed(request, answer)) as deltas:
            async for delta in deltas:
                if first_s is None and not isinstance(delta, NoticeDelta):
                    first_s = self._clock() - started_s
                if isinstance(delta, StreamDone):
                    usage = delta.usage
                    now_s = self._clock()
                    total_s = now_s - started_s
                    self._routes.met(request.model, usage, first_s or total_s, total_s, now_s)
                    delta = StreamDone(
                        usage=replace(
                            usage,
                            cost=usage.cost or self.price(request.model).cost(usage),
                            spans=(span, *usage.spans),
                            decisions=(decision, *taken, *usage.decisions),
                        )
                    )
                yield delta

    def _note(self, learner: Learner, request: Request, answer: Completion) -> None:
        learner.note(request, answer, self._routes.vectors.of)

    async def _followed(
        self, request: Request, answer: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[Delta, None]:
        """The same deltas; what came of them is noted, however they end."""
        usage: Usage | None = None
        try:
            async with aclosing(answer) as deltas:
                async for delta in deltas:
                    if request.forecast is not None:
                        self.outcomes.piece(request.id, self._clock())
                    if isinstance(delta, StreamDone):
                        usage = delta.usage
                        usage = replace(usage, cost=usage.cost or self.price(request.model).cost(usage))
                    yield delta
        finally:
            self.outcomes.ended(request.id, usage, self._clock())

    async def _admitted(self, backend: Backend, request: Request) -> AsyncGenerator[Delta, None]:
        """The backend's stream, begun when it is the tenant's turn, within the request's budgets."""
        turns = self._turns.get(request.model or self.default)
        arrived_s = self._clock()
        async with AsyncExitStack() as held:
            if turns is not None:
                n, hints = request.sampling.n, turn_hints(request.context)
                await held.enter_async_context(turns.turn(request.tenant, n, request.priority, hints))
            span = Span(layer="resource", name="admission", start_s=arrived_s, end_s=self._clock())
            limit = None
            if needs_count(request.context):
                request, limit = fitted(
                    request,
                    prompt_tokens=await self._prompt_tokens(backend, request),
                    price=self.price(request.model),
                    context_length=backend.capabilities.context_length,
                )
            # Every backend's stream is an async generator; the protocol only promises iteration.
            stream = cast("AsyncGenerator[Delta, None]", backend.stream(request))
            deltas = await held.enter_async_context(aclosing(marked(stream, limit)))
            async for delta in deltas:
                if isinstance(delta, StreamDone) and turns is not None:
                    usage = delta.usage
                    delta = StreamDone(usage=replace(usage, spans=(span, *usage.spans)))
                yield delta

    async def _prompt_tokens(self, backend: Backend, request: Request) -> int:
        """Counted where the tokenizer is here, else estimated from its bytes."""
        try:
            return await in_thread(backend.count_tokens, request, chars=prompt_chars(request))
        except Incompatible:
            return estimated_tokens(prompt_bytes(request)) + media_tokens(request)

    async def _count_partial(self, backend: Backend, request: Request, texts: list[str]) -> Usage:
        """The usage of an answer that was cut: its text, tokenized once more."""
        if isinstance(backend, TokenCodec):
            counts = [await in_thread(backend.tokenize, text, chars=len(text)) for text in texts]
            completion = sum(map(len, counts))
        else:
            completion = sum(estimated_tokens(len(text.encode())) for text in texts)
        return Usage(prompt_tokens=await self._prompt_tokens(backend, request), completion_tokens=completion)

    def routed(self, request: Request) -> Request:
        """The request with the model that the router chose, and that model's defaults where it left
        open how to draw; one that is routed already stays as it is.

        Raises ModelNotFound, Incompatible, Forbidden: no backend may serve this request.
        """
        if request.routed is not None:
            return request
        return self.chosen({"": request})[1]

    def chosen(self, ways: Mapping[str, Request]) -> tuple[str, Request]:
        """One of several ways of asking the same, by name, and its request as `routed` gives it.

        The first is taken unless the router is a controller. Raises as `routed` does.
        """
        return self._routes.chosen(ways)

    async def prepare(self, *requests: Request) -> None:
        """Has what the router will want of these requests, and what takes time, made off the event loop."""
        await self._routes.prepare(*requests)

    def judge(self, request: Request, *, right: bool) -> None:
        """Counts how the answer to a routed request has gone, where the router goes by it."""
        if request.forecast is not None:
            forecast = request.forecast
            self.outcomes.judged(forecast.task, request.model, forecast.way, right=right)

    async def complete(self, request: Request) -> Completion:
        """The whole answer: the fold of `stream`."""
        async with aclosing(self.stream(request)) as deltas:
            return await collect(deltas)

    def count_tokens(self, request: Request) -> int:
        """Prompt tokens of the request as its model would see it, tools and template included."""
        request, backend, _ = self._route(request)
        return backend.count_tokens(request)

    def prompt_text(self, request: Request) -> str:
        """The request exactly as its model sees it, tools and template included; parts by their digests."""
        request, backend, _ = self._route(request)
        if isinstance(backend, PromptRenderer):
            return backend.prompt_text(request)
        fields = {name: getattr(request, name) for name in ("messages", "text", "token_ids", "tools")}
        if request.media:
            fields["messages"] = tuple(
                replace(message, media=tuple(replace(one, data=b"") for one in message.media))
                for message in request.messages or ()
            )
        return msgspec.json.encode({name: value for name, value in fields.items() if value}).decode()

    def tokenize(self, model: str, text: str, *, prefix: bool = False) -> list[int]:
        """Token ids of raw text. Raises Incompatible when the model's tokenizer is not here."""
        return self._codec(model).tokenize(text, prefix=prefix)

    def detokenize(self, model: str, ids: Sequence[int]) -> str:
        """The text of token ids. Raises Incompatible when the model's tokenizer is not here."""
        return self._codec(model).detokenize(ids)

    def tokenizer_facts(self, model: str) -> TokenizerFacts:
        """The model's vocabulary and template. Raises Incompatible when they are not here."""
        return self._codec(model).tokenizer_facts()

    async def embed(
        self,
        model: str,
        texts: Texts,
        *,
        prompt: str | None = None,
        dimensions: int | None = None,
    ) -> Embeddings:
        """See `vectors.embedded`. Raises ModelNotFound, too, when no such embedder is served."""
        return await embedded(
            self.served.embedder(model),
            texts,
            model=model,
            prompt=prompt,
            dimensions=dimensions,
            clock=self._clock,
        )

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> Scores:
        """One score per document, computed off the event loop.

        Raises ModelNotFound when no such reranker is served, ContextLengthExceeded on a pair too long.
        """
        reranker = self.served.reranker(model)
        started_s = self._clock()
        chars = len(query) * len(documents) + sum(map(len, documents))
        async with leased(reranker) as loaded:
            scores, tokens = await in_thread(loaded.score_counted, query, documents, chars=chars)
        span = Span(layer="execution", name="rerank", start_s=started_s, end_s=self._clock())
        return Scores(scores=scores, usage=Usage(prompt_tokens=tokens, spans=(span,)))

    def models(self) -> list[ModelCard]:
        """A card per model: the default first, then the other generators, the embedders, the rerankers."""
        return self.served.cards()

    def price(self, model: str) -> Price:
        """What a served model costs; an empty name means the default."""
        return self._routes.price(model or self.default)

    def stats(self) -> dict[str, dict[str, float]]:
        """Each backend's gauges and counters, by model name."""
        return {name: backend.stats() for name, backend in self._backends.items()}

    def doubts(self) -> tuple[Doubt, ...]:
        """Why the router's predictions are not trusted now; empty while they are."""
        return self.outcomes.doubts(self._clock())

    def check(self) -> str | None:
        """None while every backend is healthy; else the first trouble, with the model's name."""
        for name, backend in self._backends.items():
            trouble = backend.check()
            if trouble is not None:
                return f"model {name!r}: {trouble}"
        return None

    async def close(self) -> None:
        """Closes all backends, even if one fails to; then raises the first failure."""
        results = await asyncio.gather(*(b.close() for b in self._backends.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _route(self, request: Request) -> tuple[Request, Backend, Decision]:
        """The request with its model chosen, now or earlier; that model; and why."""
        request = self.routed(request)
        assert request.routed is not None, "it has just been chosen"
        return request, self._backends[request.model], request.routed

    def _codec(self, model: str) -> TokenCodec:
        backend = self.served.backend(model)
        if not isinstance(backend, TokenCodec):
            raise Incompatible(
                f"the tokenizer of model {model or self.default!r} is not on this machine",
                hint="choose a model that runs here",
                param="model",
            )
        return backend
