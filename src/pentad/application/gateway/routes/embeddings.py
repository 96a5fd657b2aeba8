"""POST /v1/embeddings."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import cast

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.schemas.embeddings import (
    EmbeddingAnswer,
    EmbeddingItem,
    EmbeddingRequest,
    EmbeddingUsage,
)
from pentad.errors import InvalidRequest, ModelNotFound
from pentad.model.cards import ModelCard
from pentad.model.vectors import Texts


def routes(gateway: Gateway) -> list[Route]:
    """Vectors of texts."""
    body = Body(EmbeddingRequest)

    async def embeddings(http: HttpRequest) -> Response:
        wire = await body.read(http, gateway.settings)
        texts = _texts(wire.input)
        card = _embedder(gateway, wire.model)
        clock = gateway.services.clock
        began_s = clock()
        vectors = gateway.services.models.embed(
            card.name, texts, prompt=wire.prompt_name, dimensions=wire.dimensions
        )
        made = await gateway.plain(http, vectors)
        if gateway.traced is not None:
            width = len(made.vectors[0]) if made.vectors else 0
            caller = exchange_of(http).trace
            gateway.traced.embedded(card.name, made.usage, caller, clock() - began_s, width)
        encode = _base64 if wire.encoding_format == "base64" else list
        tokens = made.usage.prompt_tokens
        return json_response(
            EmbeddingAnswer(
                data=[EmbeddingItem(index=i, embedding=encode(v)) for i, v in enumerate(made.vectors)],
                model=card.name,
                usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
            )
        )

    return [Route("/v1/embeddings", embeddings, methods=["POST"])]


def _texts(given: str | Sequence[str | int | list[int]]) -> Texts:
    """Texts, or tokens of texts; one alone may come without its list. Raises InvalidRequest."""
    if isinstance(given, str):
        return [given]
    if all(isinstance(one, int) for one in given):
        return [cast("list[int]", given)]
    if not all(isinstance(one, type(given[0])) for one in given):
        raise InvalidRequest("input mixes texts and tokens", hint="send one kind", param="input")
    for index, text in enumerate(given):
        if not text:
            raise InvalidRequest(f"input[{index}] is empty", param=f"input[{index}]")
    return cast("Texts", given)


def _embedder(gateway: Gateway, name: str | None) -> ModelCard:
    cards = [card for card in gateway.services.models.models() if card.kind == "embed"]
    for card in cards:
        if name in (None, card.name):
            return card
    known = ", ".join(card.name for card in cards) or "none; name one with --embedding-model"
    asked = "no embedding model is served here" if name is None else f"no embedding model {name!r} here"
    raise ModelNotFound(asked, hint=f"known: {known}", param="model")


def _base64(vector: Sequence[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
