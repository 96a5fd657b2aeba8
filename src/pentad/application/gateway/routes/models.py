"""GET /v1/models: the served models, in the shape of whoever asks."""

from __future__ import annotations

import datetime

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.schemas.common import Card, CardList
from pentad.application.gateway.schemas.messages import ModelInfo, ModelPage
from pentad.errors import ModelNotFound
from pentad.model.cards import ModelCard


def routes(gateway: Gateway) -> list[Route]:
    """The list and each of its models."""

    async def models(http: HttpRequest) -> Response:
        cards = gateway.services.listed()
        if exchange_of(http).dialect == "openai":
            return json_response(CardList(data=[_card(card) for card in cards]))
        return json_response(_page([_info(card) for card in cards if card.kind == "generate"], http))

    async def model(http: HttpRequest) -> Response:
        name = http.path_params["name"]
        cards = gateway.services.listed()
        for card in cards:
            if card.name == name:
                return json_response(_card(card) if exchange_of(http).dialect == "openai" else _info(card))
        known = ", ".join(card.name for card in cards)
        raise ModelNotFound(f"no model {name[:100]!r} here", hint=f"known: {known}", param="model")

    return [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
    ]


def _page(infos: list[ModelInfo], http: HttpRequest) -> ModelPage:
    """The models behind `after_id` or before `before_id`, at most `limit` of them."""
    query = http.query_params
    ids = [info.id for info in infos]
    if (after := query.get("after_id")) in ids:
        infos = infos[ids.index(after) + 1 :]
    elif (before := query.get("before_id")) in ids:
        infos = infos[: ids.index(before)]
    text = query.get("limit", "")
    limit = min(1000, int(text)) if text.isdigit() and 0 < len(text) < 10 else 1000
    shown = infos[:limit]
    return ModelPage(
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=len(infos) > len(shown),
    )


def _info(card: ModelCard) -> ModelInfo:
    created = datetime.datetime.fromtimestamp(card.created_s, datetime.UTC)
    return ModelInfo(
        id=card.name,
        display_name=card.name,
        created_at=created.isoformat().replace("+00:00", "Z"),
        max_input_tokens=card.context_length,
        max_tokens=card.context_length,
    )


def _card(card: ModelCard) -> Card:
    features: dict[str, object] = {"kind": card.kind, "state": card.state, "aliases": list(card.aliases)}
    if card.capabilities is not None:
        can = card.capabilities
        features |= {
            "remote": can.remote,
            "tools": can.tools,
            "formats": sorted(can.formats),
            "logprobs": can.logprobs,
            "token_prompts": can.token_prompts,
            "media": sorted(can.media),
            "sampling": dict(can.sampling),
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
