"""Ollama's API for answers and vectors: /api/chat, /api/generate, /api/embed, /api/embeddings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.context import run_context
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.errors import error_body
from pentad.application.gateway.exchange import Exchange, exchange_of, new_id
from pentad.application.gateway.request_options import options_of, prioritized
from pentad.application.gateway.schemas.ollama import (
    KeepAlive,
    OllamaChatRequest,
    OllamaEmbedAnswer,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
    OllamaRequest,
    OllamaVector,
)
from pentad.application.gateway.sse import NDJSON_HEADERS
from pentad.application.gateway.translate.ollama import chat_request, generate_request, keep_alive_s
from pentad.application.gateway.translate.ollama_answer import OllamaLines
from pentad.errors import PentadError
from pentad.execution.backend import collect
from pentad.types import Request

_NS = 1_000_000_000


def routes(gateway: Gateway) -> list[Route]:
    """Chats, completions and vectors as Ollama's clients ask for them."""
    chat_body, generate_body = Body(OllamaChatRequest), Body(OllamaGenerateRequest)
    embed_body = Body(OllamaEmbedRequest)
    models, clock = gateway.services.models, gateway.services.clock

    async def chat(http: HttpRequest) -> Response:
        wire = await chat_body.read(http, gateway.settings)
        return await answer(http, wire, chat_request, chat=True, empty=not wire.messages)

    async def generate(http: HttpRequest) -> Response:
        wire = await generate_body.read(http, gateway.settings)
        return await answer(http, wire, generate_request, chat=False, empty=not wire.prompt)

    async def answer(
        http: HttpRequest,
        wire: OllamaRequest,
        translate: Callable[..., Request],
        *,
        chat: bool,
        empty: bool,
    ) -> Response:
        exchange = exchange_of(http)
        lines = OllamaLines(model=wire.model, chat=chat, arrived_s=exchange.arrived_s, clock=clock)
        if empty:
            return json_response(await only_loaded(exchange, wire, lines))
        options = options_of(wire, http.headers, exchange, gateway.settings.service_classes)
        made = partial(
            translate,
            wire,
            request_id=new_id("ollama"),
            tenant=exchange.tenant,
            context=run_context(options),
            media=gateway.media_reader(exchange.tenant),
        )
        asked = await gateway.translating(exchange, made)
        request = await gateway.routed(prioritized(asked, options))
        gateway.translated(exchange)
        keep(request.model, wire.keep_alive)
        deltas = gateway.generate(request, exchange)
        if wire.stream is not False:

            def error_line(error: PentadError) -> bytes:
                return error_body(error, "ollama", exchange.request_id) + b"\n"

            return gateway.events(
                lines.frames(deltas), exchange, error_frame=error_line, headers=NDJSON_HEADERS
            )
        async with aclosing(deltas) as stream:
            return json_response(lines.whole(await gateway.plain(http, collect(stream))))

    async def only_loaded(exchange: Exchange, wire: OllamaRequest, lines: OllamaLines) -> Any:
        """Loads the model that a request without a prompt names, or unloads it."""
        name = models.served.canonical(wire.model)
        models.served.backend(name)
        keep(name, wire.keep_alive)
        if wire.keep_alive is not None and keep_alive_s(wire.keep_alive) == 0:
            await gateway.management.unload(name, exchange.tenant)
            return lines.only("unload", 0.0)
        began_s = clock()
        await gateway.management.load(name)
        return lines.only("load", clock() - began_s)

    def keep(name: str, keep_alive: KeepAlive | None) -> None:
        """From now on the model stays loaded for that time without requests."""
        slot = models.served.slot(name)
        if slot is not None and keep_alive is not None:
            slot.keep_s = keep_alive_s(keep_alive)

    async def vectors(http: HttpRequest, wire: OllamaEmbedRequest, texts: list[str]) -> OllamaEmbedAnswer:
        name = models.served.canonical(wire.model)
        keep(name, wire.keep_alive)
        began_s = clock()
        found = await gateway.plain(http, models.embed(name, texts, dimensions=wire.dimensions))
        loaded_s = sum(span.end_s - span.start_s for span in found.usage.spans if span.name == "load")
        return OllamaEmbedAnswer(
            model=wire.model,
            embeddings=found.vectors,
            total_duration=int((clock() - began_s) * _NS),
            load_duration=int(loaded_s * _NS),
            prompt_eval_count=found.usage.prompt_tokens,
        )

    async def embed(http: HttpRequest) -> Response:
        wire = await embed_body.read(http, gateway.settings)
        texts = [wire.input] if isinstance(wire.input, str) else wire.input
        return json_response(await vectors(http, wire, texts))

    async def embeddings(http: HttpRequest) -> Response:
        wire = await embed_body.read(http, gateway.settings)
        found = await vectors(http, wire, [wire.prompt or ""])
        return json_response(OllamaVector(embedding=found.embeddings[0]))

    return [
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/generate", generate, methods=["POST"]),
        Route("/api/embed", embed, methods=["POST"]),
        Route("/api/embeddings", embeddings, methods=["POST"]),
    ]
