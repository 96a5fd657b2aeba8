"""POST /v1/responses and what can be done with a stored one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.context import run_context
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.errors import PreviousResponseNotFound, internal_error
from pentad.application.gateway.exchange import Exchange, exchange_of, new_id
from pentad.application.gateway.request_options import options_of, prioritized
from pentad.application.gateway.schemas.responses import (
    InputItem,
    InputTokens,
    ResponseDeleted,
    ResponseObject,
    ResponseRequest,
)
from pentad.application.gateway.store import Stored
from pentad.application.gateway.translate.frames import event_frame
from pentad.application.gateway.translate.response_tools import shown_names
from pentad.application.gateway.translate.responses import (
    check_kept,
    input_messages,
    resolved,
    response_request,
)
from pentad.application.gateway.translate.responses_answer import ResponseBuilder
from pentad.application.gateway.translate.responses_replay import opening_events, remaining_events
from pentad.errors import Conflict, InvalidRequest, NotFound, PentadError
from pentad.execution.backend import Delta
from pentad.types import Message, Request, RunContext


class Responses:
    """The handlers, and the background responses that are running."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._body = Body(ResponseRequest)
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}

    def routes(self) -> list[Route]:
        """Create, read, delete and cancel."""
        one = "/v1/responses/{response_id}"
        return [
            Route("/v1/responses", self.create, methods=["POST"]),
            Route("/v1/responses/input_tokens", self.input_tokens, methods=["POST"]),
            Route(one, self.read, methods=["GET"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, http: HttpRequest) -> Response:
        """Answers streamed, plain or, with `background`, at once and later."""
        exchange = exchange_of(http)
        wire = await self._body.read(http, self._gateway.settings)
        if wire.background and wire.store is False:
            raise InvalidRequest("background needs store", hint="leave store out", param="store")
        wire = self._complete(wire, exchange.tenant)
        options = options_of(wire, http.headers, exchange, self._gateway.settings.service_classes)
        before = self._before(exchange.tenant, wire.previous_response_id)
        reading = partial(input_messages, wire, self._gateway.media_reader(exchange.tenant))
        new = await self._gateway.translating(exchange, reading)
        context = run_context(options)
        if context.parent is None:
            context = replace(context, parent=wire.previous_response_id)
        asked = response_request(
            wire,
            request_id=new_id("resp"),
            tenant=exchange.tenant,
            context=context,
            before=before,
            new=new,
            ignored=exchange.ignored,
        )
        request = await self._gateway.routed(prioritized(asked, options))
        explain = self._gateway.explain(exchange, self._gateway.translated(exchange), options.explain)
        history = (*before, *new)

        def keep(builder: ResponseBuilder) -> None:
            if wire.store is not False:
                turns = (*history, *builder.turns())
                self._gateway.responses.put(exchange.tenant, builder.response, turns)

        start = self._start(wire, request)
        shown = shown_names(wire.tools or ())
        builder = ResponseBuilder(start, explain=explain, on_end=keep, shown=shown)
        deltas = self._gateway.generate(request, exchange)
        if wire.background:
            self._in_background(exchange, builder, deltas, history)
            if wire.stream:
                return self._followed(exchange, builder.response.id, 0)
            return json_response(builder.response)
        if wire.stream:
            return self._gateway.events(builder.frames(deltas), exchange, error_frame=builder.failed)
        return json_response(await self._gateway.plain(http, builder.run(deltas)))

    async def read(self, http: HttpRequest) -> Response:
        """A stored response as it is now, or with `stream=true` as events until its end."""
        stored = self._stored(http)
        if http.query_params.get("stream", "false").lower() not in ("true", "1"):
            return json_response(stored.response)
        after = http.query_params.get("starting_after", "-1")
        if not after.removeprefix("-").isdigit() or len(after) > 18:
            raise InvalidRequest(
                f"starting_after is {after[:32]!r}",
                hint="give the number of the last event that came",
                param="starting_after",
            )
        return self._followed(exchange_of(http), stored.response.id, int(after) + 1)

    async def input_tokens(self, http: HttpRequest) -> Response:
        """Tokens of the prompt that this request would have."""
        exchange = exchange_of(http)
        wire = self._complete(await self._body.read(http, self._gateway.settings), exchange.tenant)
        reading = partial(input_messages, wire, self._gateway.media_reader(exchange.tenant))
        request = response_request(
            wire,
            request_id=new_id("count"),
            tenant=exchange.tenant,
            context=RunContext(),
            before=self._before(exchange.tenant, wire.previous_response_id),
            new=await self._gateway.translating(exchange, reading),
            ignored=exchange.ignored,
        )
        tokens = await asyncio.to_thread(self._gateway.services.models.count_tokens, request)
        return json_response(InputTokens(input_tokens=tokens))

    async def delete(self, http: HttpRequest) -> Response:
        """Forgets a stored response."""
        stored = self._stored(http)
        self._gateway.responses.remove(exchange_of(http).tenant, stored.response.id)
        return json_response(ResponseDeleted(id=stored.response.id))

    async def cancel(self, http: HttpRequest) -> Response:
        """Stops a background response; a finished one is a Conflict."""
        stored = self._stored(http)
        response, tenant = stored.response, exchange_of(http).tenant
        task = self._running.get((tenant, response.id))
        if task is None:
            raise Conflict(
                f"response {response.id!r} is {response.status}",
                hint="only background responses in progress can be cancelled",
            )
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return json_response(self._stored(http).response)

    def _complete(self, wire: ResponseRequest, tenant: str) -> ResponseRequest:
        """The request with what it refers to. Raises for what is not kept here."""
        check_kept(wire)

        def stored(item_id: str) -> InputItem | None:
            item = self._gateway.responses.item(tenant, item_id)
            return None if item is None else msgspec.convert(item, InputItem)

        return resolved(wire, stored)

    def _followed(self, exchange: Exchange, response_id: str, first: int) -> Response:
        """The events of a kept response from number `first` on; those of one in progress when it ends."""

        async def frames() -> AsyncGenerator[bytes, None]:
            key = (exchange.tenant, response_id)
            stored = self._gateway.responses.get(*key)
            numbers = itertools.count()
            for name, fields in () if stored is None else opening_events(stored.response):
                if (number := next(numbers)) >= first:
                    yield event_frame(name, {"type": name, "sequence_number": number, **fields})
            if (task := self._running.get(key)) is not None:
                await asyncio.wait({task})
            stored = self._gateway.responses.get(*key)
            if stored is None:
                raise NotFound(f"response {response_id!r} was forgotten meanwhile", param="response_id")
            for name, fields in remaining_events(stored.response):
                if (number := next(numbers)) >= first:
                    yield event_frame(name, {"type": name, "sequence_number": number, **fields})

        return self._gateway.events(frames(), exchange)

    def _before(self, tenant: str, response_id: str | None) -> tuple[Message, ...]:
        if response_id is None:
            return ()
        stored = self._gateway.responses.get(tenant, response_id)
        if stored is None or stored.response.status in ("queued", "in_progress"):
            raise PreviousResponseNotFound(
                f"Previous response with id {response_id[:80]!r} not found",
                hint="send the whole conversation as input",
                param="previous_response_id",
            )
        return stored.turns

    def _stored(self, http: HttpRequest) -> Stored:
        response_id = http.path_params["response_id"]
        stored = self._gateway.responses.get(exchange_of(http).tenant, response_id)
        if stored is None:
            raise NotFound(f"no response {response_id[:80]!r} is stored here", param="response_id")
        return stored

    def _start(self, wire: ResponseRequest, request: Request) -> ResponseObject:
        choice = wire.tool_choice or "auto"
        text = msgspec.to_builtins(wire.text) if wire.text is not None else {}
        return ResponseObject(
            id=request.id,
            created_at=int(time.time()),
            model=request.model,
            status="in_progress",
            output=[],
            tools=[msgspec.to_builtins(tool) for tool in wire.tools or ()],
            tool_choice=choice if isinstance(choice, str) else msgspec.to_builtins(choice),
            parallel_tool_calls=wire.parallel_tool_calls is not False,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            text=text if text.get("format") else {**text, "format": {"type": "text"}},
            instructions=wire.instructions,
            previous_response_id=wire.previous_response_id,
            max_output_tokens=wire.max_output_tokens,
            reasoning=None if wire.reasoning is None else msgspec.to_builtins(wire.reasoning),
            metadata=wire.metadata or {},
            store=wire.store is not False,
            background=bool(wire.background),
        )

    def _in_background(
        self,
        exchange: Exchange,
        builder: ResponseBuilder,
        deltas: AsyncGenerator[Delta, None],
        history: tuple[Message, ...],
    ) -> None:
        store, key = self._gateway.responses, (exchange.tenant, builder.response.id)
        store.put(exchange.tenant, builder.response, history)

        async def work() -> None:
            try:
                with self._gateway.load.slot(exchange.tenant):
                    await builder.run(deltas)
            except asyncio.CancelledError:
                cancelled = msgspec.structs.replace(builder.response, status="cancelled")
                store.put(exchange.tenant, cancelled, history)
                raise
            except PentadError as error:
                builder.fail(error)
            except Exception:
                self._gateway.log.exception("background response %s failed", builder.response.id)
                builder.fail(internal_error(exchange.request_id))
            finally:
                self._running.pop(key, None)

        self._running[key] = self._gateway.background(work())
