"""POST /models/load and /models/unload, and GET /models, as clients of llama.cpp's router know them."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.body import Body
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.schemas.operations import (
    ModelChange,
    ModelChanged,
    ModelState,
    ModelStates,
    ModelStatus,
)
from pentad.errors import ModelNotFound


def routes(gateway: Gateway) -> list[Route]:
    """What is loaded, and changing it."""
    body = Body(ModelChange)
    models = gateway.services.models

    async def states(_: HttpRequest) -> Response:
        listed = [
            ModelState(id=card.name, status=ModelStatus(value=card.state), aliases=list(card.aliases))
            for card in models.models()
        ]
        return json_response(ModelStates(data=listed))

    async def named(http: HttpRequest) -> str:
        wire = await body.read(http, gateway.settings)
        name = models.served.canonical(wire.model)
        if name not in models.served:
            known = ", ".join(card.name for card in models.models())
            raise ModelNotFound(f"no model {wire.model!r} here", hint=f"known: {known}", param="model")
        return name

    async def load(http: HttpRequest) -> Response:
        name = await named(http)
        gateway.management.check(exchange_of(http).tenant)
        await gateway.plain(http, gateway.management.load(name))
        return json_response(ModelChanged())

    async def unload(http: HttpRequest) -> Response:
        await gateway.management.unload(await named(http), exchange_of(http).tenant)
        return json_response(ModelChanged())

    return [
        Route("/models", states, methods=["GET"]),
        Route("/models/load", load, methods=["POST"]),
        Route("/models/unload", unload, methods=["POST"]),
    ]
