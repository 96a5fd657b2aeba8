"""create_app: the gateway as one Starlette application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute

from pentad.application import console
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.errors import MethodNotAllowed, error_response
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.guard import Guard
from pentad.application.gateway.routes import (
    adapters,
    audio,
    chat,
    completions,
    embeddings,
    files,
    messages,
    model_control,
    models,
    ollama,
    ollama_models,
    operations,
    rerank,
)
from pentad.application.gateway.routes.a2a import A2aRoutes
from pentad.application.gateway.routes.mcp import McpRoute
from pentad.application.gateway.routes.responses import Responses
from pentad.application.gateway.routes.runs import Runs
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.services import Services
from pentad.errors import InvalidRequest, NotFound, PentadError


def create_app(services: Services, settings: GatewaySettings) -> Starlette:
    """The application over these services, which stay open when it shuts down."""
    gateway = Gateway(services, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await gateway.close()

    app = Starlette(
        routes=_routes(gateway),
        middleware=[Middleware(Guard, gateway=gateway)],
        exception_handlers={HTTPException: _routing_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    return app


def _routes(gateway: Gateway) -> list[BaseRoute]:
    modules = (
        chat,
        completions,
        models,
        embeddings,
        rerank,
        audio,
        messages,
        files,
        ollama,
        ollama_models,
        model_control,
        adapters,
        operations,
    )
    served: list[BaseRoute] = [route for module in modules for route in module.routes(gateway)]
    protocols = [*McpRoute(gateway).routes(), *A2aRoutes(gateway).routes()]
    return [*served, *Responses(gateway).routes(), *Runs(gateway).routes(), *protocols, *console.routes()]


async def _routing_error(http: HttpRequest, raised: Exception) -> Response:
    """404 and 405 of the router, in the client's dialect."""
    assert isinstance(raised, HTTPException)
    exchange = exchange_of(http)
    path = http.url.path[:100]
    error: PentadError
    match raised.status_code:
        case 404:
            error = NotFound(f"no route {path!r}", hint="the routes are listed in /openapi.json")
        case 405:
            allowed = (raised.headers or {}).get("Allow", "")
            error = MethodNotAllowed(
                f"{path!r} does not take {http.method[:20]!r}", hint=f"it takes {allowed}"
            )
        case _:
            error = InvalidRequest("the request could not be read")
    return error_response(error, exchange.dialect, exchange.request_id, raised.headers)
