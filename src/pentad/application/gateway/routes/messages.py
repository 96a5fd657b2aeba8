"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.context import run_context
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.errors import error_body
from pentad.application.gateway.exchange import exchange_of, new_id
from pentad.application.gateway.request_options import options_of, prioritized
from pentad.application.gateway.schemas.messages import CountTokensRequest, MessagesRequest, TokenCount
from pentad.application.gateway.translate.messages import messages_request
from pentad.application.gateway.translate.messages_answer import MessageEvents, messages_answer
from pentad.errors import Incompatible, PentadError
from pentad.execution.backend import collect
from pentad.model.backends.sizes import prompt_chars
from pentad.model.workers import in_thread
from pentad.types import Request, RunContext


def routes(gateway: Gateway) -> list[Route]:
    """Anthropic's messages."""
    messages_body = Body(MessagesRequest)
    count_body = Body(CountTokensRequest)
    models = gateway.services.models

    async def messages(http: HttpRequest) -> Response:
        exchange = exchange_of(http)
        wire = await messages_body.read(http, gateway.settings)
        options = options_of(wire, http.headers, exchange, gateway.settings.service_classes)
        answer_id = new_id("msg")
        made = partial(
            messages_request,
            wire,
            request_id=answer_id,
            tenant=exchange.tenant,
            context=run_context(options),
            media=gateway.media_reader(exchange.tenant),
        )
        asked = await gateway.translating(exchange, made)
        request = await gateway.routed(prioritized(asked, options))
        explain = gateway.explain(exchange, gateway.translated(exchange), options.explain)
        deltas = gateway.generate(request, exchange)
        if wire.stream:

            async def prompt_tokens() -> int:
                return await _count(request)

            def error_event(error: PentadError) -> bytes:
                return b"event: error\ndata: " + error_body(error, "anthropic", exchange.request_id) + b"\n\n"

            events = MessageEvents(
                id=answer_id, model=request.model, prompt_tokens=prompt_tokens, explain=explain
            )
            return gateway.events(events.frames(deltas), exchange, error_frame=error_event)
        async with aclosing(deltas) as stream:
            completion = await gateway.plain(http, collect(stream))
        return json_response(messages_answer(completion, id=answer_id, model=request.model, explain=explain))

    async def _count(request: Request) -> int:
        """Prompt tokens for message_start; models elsewhere report them at the end only."""
        try:
            return await in_thread(models.count_tokens, request, chars=prompt_chars(request))
        except Incompatible:
            return 0

    async def count_tokens(http: HttpRequest) -> Response:
        exchange = exchange_of(http)
        wire = await count_body.read(http, gateway.settings)
        request = messages_request(
            wire,
            request_id=new_id("count"),
            tenant=exchange.tenant,
            context=RunContext(),
            media=gateway.media_reader(exchange.tenant),
        )
        tokens = await in_thread(models.count_tokens, request, chars=prompt_chars(request))
        return json_response(TokenCount(input_tokens=tokens))

    return [
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    ]
