"""Gateway: what all routes of one server share, and the one way down to the models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from pentad.application.gateway.access import Access
from pentad.application.gateway.context import explanation
from pentad.application.gateway.errors import error_body
from pentad.application.gateway.exchange import Exchange
from pentad.application.gateway.fetching import Fetcher
from pentad.application.gateway.file_store import FileStore
from pentad.application.gateway.load import Load
from pentad.application.gateway.management import ModelManagement
from pentad.application.gateway.memory import Memory
from pentad.application.gateway.metering import Pulse, metered
from pentad.application.gateway.metrics import Metrics
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.gateway.sse import SSE_HEADERS, EventStream, StreamWatch, until_disconnected
from pentad.application.gateway.store import ResponseStore
from pentad.application.gateway.translate.content import MediaReader
from pentad.application.services import Services
from pentad.content import MediaLimits
from pentad.errors import InvalidRequest, PentadError, Unavailable
from pentad.execution.backend import Delta, NoticeDelta
from pentad.model.objectives import LIMIT
from pentad.model.workers import in_thread
from pentad.types import Request, Span, Usage

T = TypeVar("T")


class Gateway:
    """State of one server process; routes are functions over it."""

    def __init__(self, services: Services, settings: GatewaySettings) -> None:
        self.services = services
        self.settings = settings
        self.access = Access(settings)
        self.load = Load(settings, services.clock)
        self._policies = {name: settings.policy_of(name) for name in settings.tenant_names()}
        self.metrics = Metrics(
            services.models.stats, compat=settings.metrics_compat, classes=settings.service_classes
        )
        self.metrics.tell_doubts(services.models.doubts)
        self.traced = None
        """What makes spans of requests; None where no traces are exported."""
        if services.telemetry is not None:
            self.traced = services.telemetry.requests
            self.metrics.count_spans(services.telemetry.sender)
        self.memory = Memory()
        self.management = ModelManagement(services, settings)
        self.pulse = Pulse()
        self.watch = StreamWatch(
            keep_alive_s=settings.keep_alive_s,
            slow_client_limit_s=settings.slow_client_limit_s,
            clock=services.clock,
        )
        share = settings.tenant_share if len(settings.tenant_names()) > 1 else 1.0
        self.responses = ResponseStore(settings.response_store_bytes, share=share)
        self.files = FileStore(settings.file_store_bytes, share=share)
        self.fetcher = Fetcher(settings.remote_parts) if settings.remote_parts else None
        self.log = logging.getLogger("pentad.gateway")
        self._ending = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs work that outlives its request; it is cancelled when the server ends."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def end_all(self) -> None:
        """Stops every answer that is still being made; each client is told."""
        self._ending.set()
        self.watch.end_all(_shutting_down())

    async def pause(self, seconds: float) -> None:
        """Waits so long, or until the server ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def plain(self, http: HttpRequest, work: Awaitable[T]) -> T:
        """The result of the work for an answer in one piece, which is cancelled when nobody waits.

        Raises:
            ClientDisconnect: the client went away.
            Unavailable: the server ended first.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.create_task(until_disconnected(http.receive))
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({task, gone, ending}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _shutting_down() if ending.done() else ClientDisconnect()
        finally:
            for one in (task, gone, ending):
                one.cancel()
            await asyncio.gather(task, gone, ending, return_exceptions=True)
            # An error holds this frame: did the frame hold the error's task, large bodies would stay.
            del task, gone, ending, one

    async def close(self) -> None:
        """Ends the background work. The services belong to whoever built them."""
        await self.memory.close()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def model_name(self, asked: str | None) -> str:
        """The model that is meant where no request is made: the named one, or the default."""
        return asked or self.services.models.default

    async def translating(self, exchange: Exchange, work: Callable[[], T]) -> T:
        """What the work makes of a body; of a large one off the event loop, since parts are decoded, and of
        any where they may be fetched."""
        if self.fetcher is not None:
            return await asyncio.to_thread(work)
        return await in_thread(work, chars=exchange.body_bytes, small_inline=True)

    def media_reader(self, tenant: str) -> MediaReader:
        """Reads the parts of one request of that tenant, within this server's limits."""
        settings = self.settings
        limits = MediaLimits(
            part_bytes=settings.max_part_bytes,
            all_bytes=settings.max_parts_bytes,
            parts=settings.max_parts,
        )
        return MediaReader(limits, files=partial(self.files.get, tenant), fetcher=self.fetcher)

    async def routed(self, request: Request) -> Request:
        """The request with its model chosen, once: it serves, counts, is billed and is reported."""
        await self.services.models.prepare(request)
        return self._routed(request)

    def _routed(self, request: Request) -> Request:
        try:
            return self.services.models.routed(request)
        except PentadError:
            self.metrics.requests.labels("unknown", "error").inc()
            raise

    def priority_within(self, tenant: str, asked: int) -> int:
        """The priority that the tenant gets: what it asks for, at most as urgent as its policy allows."""
        policy = self._policies.get(tenant)
        return asked if policy is None else max(asked, policy.priority)

    def generate(self, request: Request, exchange: Exchange) -> AsyncGenerator[Delta, None]:
        """The one stream of this request, metered on its way up; its notices go to the exchange.

        Its priority is no more urgent than the policy of its tenant allows.
        """
        if request.context.budget.tool_calls is not None:
            raise InvalidRequest(
                "budget.tool_calls is of agent runs; here the client calls the tools",
                hint="leave it out",
                param="budget.tool_calls",
            )
        priority = self.priority_within(request.tenant, request.priority)
        if priority != request.priority:
            request = replace(request, priority=priority)
        asked = request.model
        request = self._routed(request)
        exchange.model = request.model
        objective = request.context.objective
        if objective.ttft_s is not None or objective.inter_token_s is not None:
            self.metrics.objectives[request.model] = objective
        deltas = _noticed(self.services.models.stream(request), exchange)
        if self.traced is not None:
            deltas = self.traced.generation(deltas, request, exchange.trace, asked)
        return metered(
            deltas,
            objective,
            request.model,
            metrics=self.metrics,
            pulse=self.pulse,
            clock=self.services.clock,
            tell_energy=exchange.energy,
            slo_class=exchange.slo_class,
        )

    def translated(self, exchange: Exchange) -> Span:
        """Our own span: from arrival to the moment the request goes down."""
        now = self.services.clock()
        self.metrics.overhead.labels("translate").observe(now - exchange.arrived_s)
        return Span(layer="application", name="gateway", start_s=exchange.arrived_s, end_s=now)

    def explain(
        self, exchange: Exchange, span: Span, asked: bool
    ) -> Callable[[Usage], dict[str, Any] | None]:
        """How this answer's `pentad` object is made: if asked for, or if a limit has cut the answer."""

        def made(usage: Usage) -> dict[str, Any] | None:
            limits = [d.constraint for d in usage.decisions if d.subject == LIMIT]
            told = explanation(usage, (span,), exchange.request_id) if asked else {}
            return {**told, "limits": limits} if limits else told or None

        return made

    def events(
        self,
        frames: AsyncGenerator[bytes, None],
        exchange: Exchange,
        *,
        error_frame: Callable[[PentadError], bytes] | None = None,
        headers: Mapping[str, str] = SSE_HEADERS,
    ) -> EventStream:
        """A streamed answer; what it waits for is told as it goes."""

        def data_event(error: PentadError) -> bytes:
            return b"data: " + error_body(error, exchange.dialect, exchange.request_id) + b"\n\n"

        return EventStream(
            frames,
            watch=self.watch,
            error_frame=error_frame or data_event,
            request_id=exchange.request_id,
            headers=headers,
            progress=lambda: self.services.models.served.progress(exchange.model),
        )


async def _noticed(deltas: AsyncGenerator[Delta, None], exchange: Exchange) -> AsyncGenerator[Delta, None]:
    """The deltas without the notices, which the answer's header tells."""
    async with aclosing(deltas) as stream:
        async for delta in stream:
            if isinstance(delta, NoticeDelta):
                exchange.notices.append(delta.text)
            else:
                yield delta


def _shutting_down() -> Unavailable:
    return Unavailable("the server is shutting down", retry_after_s=5.0, hint="try again, or another server")
