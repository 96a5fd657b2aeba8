"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from contextlib import aclosing
from functools import partial

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.context import run_context
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of, new_id
from pentad.application.gateway.request_options import options_of, prioritized
from pentad.application.gateway.schemas.chat import ChatRequest
from pentad.application.gateway.translate.chat import chat_request
from pentad.application.gateway.translate.chat_answer import ChatChunks, chat_answer
from pentad.application.gateway.translate.thinking import hides_reasoning, without_reasoning
from pentad.execution.backend import collect


def routes(gateway: Gateway) -> list[Route]:
    """Chat completions."""
    body = Body(ChatRequest)

    async def chat(http: HttpRequest) -> Response:
        exchange = exchange_of(http)
        wire = await body.read(http, gateway.settings)
        options = options_of(wire, http.headers, exchange, gateway.settings.service_classes)
        answer_id = new_id("chatcmpl")
        made = partial(
            chat_request,
            wire,
            request_id=answer_id,
            tenant=exchange.tenant,
            context=run_context(options),
            media=gateway.media_reader(exchange.tenant),
        )
        asked = await gateway.translating(exchange, made)
        request = await gateway.routed(prioritized(asked, options))
        span = gateway.translated(exchange)
        explain = gateway.explain(exchange, span, options.explain)
        deltas = gateway.generate(request, exchange)
        if hides_reasoning(wire):
            deltas = without_reasoning(deltas)
        created, model = int(time.time()), request.model
        if wire.stream:
            include_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
            chunks = ChatChunks(
                id=answer_id,
                created=created,
                model=model,
                include_usage=include_usage,
                explain=explain,
                functions=wire.functions is not None,
            )
            return gateway.events(chunks.frames(deltas), exchange)
        async with aclosing(deltas) as stream:
            completion = await gateway.plain(http, collect(stream))
        return json_response(
            chat_answer(
                completion,
                id=answer_id,
                created=created,
                model=model,
                explain=explain,
                functions=wire.functions is not None,
                logprobs=bool(wire.logprobs),
            )
        )

    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
