"""Liveness, readiness, health, metrics and version."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

import pentad
from pentad.application.gateway.answers import json_response
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.engine_report import engine_report
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.health import Health
from pentad.application.gateway.openapi import document


def routes(gateway: Gateway) -> list[Route]:
    """What operators and their tools ask."""

    settings = gateway.settings
    checker = Health(
        gateway.services, gateway.pulse, window_s=settings.health_window_s, probe_s=settings.health_probe_s
    )

    async def livez(_: HttpRequest) -> Response:
        return json_response({"status": "alive"})

    def loads() -> dict[str, dict[str, str]]:
        """What models do that requests wait for; one that is loaded is no reason not to be ready."""
        served = gateway.services.models.served
        waited = {name: text for name in served.names() if (text := served.progress(name)) is not None}
        return {"models": waited} if waited else {}

    async def readyz(_: HttpRequest) -> Response:
        load = gateway.load
        reason = "draining" if load.draining else "starting" if load.starting else None
        reason = reason or gateway.services.models.check() or await gateway.services.trouble()
        if reason is None:
            return json_response({"status": "ready"} | loads())
        return json_response({"status": "not ready", "reason": reason}, 503)

    async def health(_: HttpRequest) -> Response:
        reason = await checker.trouble()
        if reason is None:
            return json_response({"status": "healthy"})
        return json_response({"status": "unhealthy", "reason": reason}, 503)

    async def metrics(_: HttpRequest) -> Response:
        return Response(gateway.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def engine(http: HttpRequest) -> Response:
        return json_response(engine_report(gateway, exchange_of(http).tenant))

    async def version(_: HttpRequest) -> Response:
        return json_response({"version": pentad.__version__})

    async def openapi(_: HttpRequest) -> Response:
        return Response(document(pentad.__version__), media_type="application/json")

    return [
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/livez", livez, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        Route("/ping", livez, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/v1/engine", engine, methods=["GET"]),
        Route("/version", version, methods=["GET"]),
    ]
