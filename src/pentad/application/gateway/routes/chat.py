"""POST /v1/chat/completions, GET /v1/models."""

from __future__ import annotations

import time
from contextlib import aclosing

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.context import options_of, run_context
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of, new_id
from pentad.application.gateway.schemas.chat import ChatRequest
from pentad.application.gateway.schemas.common import Card, CardList
from pentad.application.gateway.translate.chat import chat_request
from pentad.application.gateway.translate.chat_answer import ChatChunks, chat_answer
from pentad.errors import ModelNotFound
from pentad.execution.backend import collect
from pentad.model.service import ModelCard


def routes(gateway: Gateway) -> list[Route]:
    """Chat completions and the model list."""
    body = Body(ChatRequest)

    async def chat(http: HttpRequest) -> Response:
        exchange = exchange_of(http)
        wire = await body.read(http, gateway.settings)
        options = options_of(wire.pentad, http.headers)
        answer_id = new_id("chatcmpl")
        request = chat_request(
            wire, request_id=answer_id, tenant=exchange.tenant, context=run_context(options)
        )
        span = gateway.translated(exchange)
        explain = gateway.explain(exchange, span, options.explain)
        deltas = gateway.generate(request)
        created, model = int(time.time()), gateway.model_name(wire.model)
        if wire.stream:
            include_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
            chunks = ChatChunks(
                id=answer_id, created=created, model=model, include_usage=include_usage, explain=explain
            )
            return gateway.events(chunks.frames(deltas), exchange)
        async with aclosing(deltas) as stream:
            completion = await gateway.plain(http, collect(stream))
        return json_response(
            chat_answer(completion, id=answer_id, created=created, model=model, explain=explain)
        )

    async def models(_: HttpRequest) -> Response:
        return json_response(CardList(data=[_card(card) for card in gateway.services.models.models()]))

    async def model(http: HttpRequest) -> Response:
        name = http.path_params["name"]
        cards = gateway.services.models.models()
        for card in cards:
            if card.name == name:
                return json_response(_card(card))
        known = ", ".join(card.name for card in cards)
        raise ModelNotFound(f"no model {name[:100]!r} here", hint=f"known: {known}", param="model")

    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
    ]


def _card(card: ModelCard) -> Card:
    features: dict[str, object] = {"kind": card.kind}
    if card.capabilities is not None:
        can = card.capabilities
        features |= {
            "remote": can.remote,
            "tools": can.tools,
            "formats": sorted(can.formats),
            "logprobs": can.logprobs,
            "token_prompts": can.token_prompts,
        }
    if card.dimensions is not None:
        features["dimensions"] = card.dimensions
    return Card(
        id=card.name,
        created=card.created_s,
        owned_by="pentad",
        max_model_len=card.context_length,
        capabilities=features,
    )
