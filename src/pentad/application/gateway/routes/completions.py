"""POST /v1/completions, /tokenize and /detokenize."""

from __future__ import annotations

import asyncio
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
from pentad.application.gateway.schemas.completions import (
    CompletionRequest,
    DetokenizeAnswer,
    DetokenizeRequest,
    TokenizeAnswer,
    TokenizeRequest,
    TokenizerInfo,
)
from pentad.application.gateway.translate.completions import completion_requests, merged
from pentad.application.gateway.translate.completions_answer import (
    CompletionChunks,
    Echo,
    completion_answer,
)
from pentad.execution.backend import collect
from pentad.model.workers import in_thread
from pentad.types import Request


def routes(gateway: Gateway) -> list[Route]:
    """Raw completions and the tokenizer."""
    completion_body = Body(CompletionRequest)
    tokenize_body = Body(TokenizeRequest)
    detokenize_body = Body(DetokenizeRequest)
    models = gateway.services.models

    async def completions(http: HttpRequest) -> Response:
        exchange = exchange_of(http)
        wire = await completion_body.read(http, gateway.settings)
        options = options_of(wire, http.headers, exchange, gateway.settings.service_classes)
        answer_id, created = new_id("cmpl"), int(time.time())
        asked = completion_requests(
            wire, request_id=answer_id, tenant=exchange.tenant, context=run_context(options)
        )
        requests = [await gateway.routed(prioritized(request, options)) for request in asked]
        model = requests[0].model
        echo = Echo()
        if wire.echo:
            echo = Echo(texts=[await prompt_text(request) for request in requests], per_prompt=wire.n or 1)
        explain = gateway.explain(exchange, gateway.translated(exchange), options.explain)
        deltas = merged([gateway.generate(request, exchange) for request in requests], wire.n or 1)
        if wire.stream:
            include_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
            chunks = CompletionChunks(
                id=answer_id,
                created=created,
                model=model,
                include_usage=include_usage,
                explain=explain,
                echo=echo,
            )
            return gateway.events(chunks.frames(deltas), exchange)
        async with aclosing(deltas) as stream:
            completion = await gateway.plain(http, collect(stream))
        return json_response(
            completion_answer(
                completion,
                id=answer_id,
                created=created,
                model=model,
                explain=explain,
                echo=echo,
                logprobs=wire.logprobs is not None,
            )
        )

    async def prompt_text(request: Request) -> str:
        if request.text is not None:
            return request.text
        return await asyncio.to_thread(models.detokenize, request.model, request.token_ids or ())

    async def tokenize(http: HttpRequest) -> Response:
        wire = await tokenize_body.read(http, gateway.settings)
        name = gateway.model_name(wire.model)
        tokens = await in_thread(
            partial(models.tokenize, prefix=wire.add_special_tokens is not False),
            name,
            wire.prompt,
            chars=len(wire.prompt),
        )
        length = next((card.context_length for card in models.models() if card.name == name), None)
        return json_response(TokenizeAnswer(count=len(tokens), max_model_len=length, tokens=tokens))

    async def detokenize(http: HttpRequest) -> Response:
        wire = await detokenize_body.read(http, gateway.settings)
        text = await asyncio.to_thread(models.detokenize, gateway.model_name(wire.model), wire.tokens)
        return json_response(DetokenizeAnswer(prompt=text))

    async def tokenizer_info(http: HttpRequest) -> Response:
        name = http.query_params.get("model") or models.default
        facts = models.tokenizer_facts(name)
        length = next((card.context_length for card in models.models() if card.name == name), None)
        return json_response(
            TokenizerInfo(
                tokenizer_class="PreTrainedTokenizerFast",
                model=name,
                vocab_size=facts.vocab_size,
                model_max_length=length,
                bos_token=facts.bos_token,
                eos_token=facts.eos_token,
                pad_token=facts.eos_token,
                chat_template=facts.chat_template,
            )
        )

    return [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        Route("/tokenizer_info", tokenizer_info, methods=["GET"]),
    ]
