"""Routes of the console: the page, its files and the gauges that it polls.

The page holds no data and runs no inline script; what it shows comes from the public API with the
visitor's own key. Every file is read once and served from memory with an ETag.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pentad import __version__

if TYPE_CHECKING:
    from pentad.application.services import Services

PAGE = "index.html"
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file of the page, ready to be sent."""

    body: bytes
    media_type: str
    etag: str


def load_assets() -> Mapping[str, Asset]:
    """The files of the page by name."""
    assets = {}
    for file in (importlib.resources.files(__package__) / "static").iterdir():
        media_type = MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type:
            body = file.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            assets[file.name] = Asset(body=body, media_type=media_type, etag=etag)
    return MappingProxyType(assets)


def routes(services: Services) -> list[Route]:
    """`/` (to the console), `/console`, `/console/static/NAME` and `/console/stats`."""
    assets = load_assets()

    async def home(_: Request) -> Response:
        return RedirectResponse("/console", status_code=307)

    async def page(request: Request) -> Response:
        return _answer(assets[PAGE], request)

    async def static(request: Request) -> Response:
        asset = assets.get(request.path_params["name"])
        return Response(status_code=404) if asset is None else _answer(asset, request)

    async def stats(_: Request) -> Response:
        return JSONResponse(gauges(services), headers={"Cache-Control": "no-store"})

    return [
        Route("/", home, include_in_schema=False),
        Route("/console", page, include_in_schema=False),
        Route("/console/static/{name}", static, include_in_schema=False),
        Route("/console/stats", stats, include_in_schema=False),
    ]


def gauges(services: Services) -> dict[str, object]:
    """What the engine page draws and `pentad ps` lists: models with their gauges and counters."""
    stats = services.models.stats()
    return {
        "version": __version__,
        "at_s": services.clock(),
        "default": services.models.default,
        "trouble": services.models.check(),
        "agents": services.agents is not None,
        "models": [
            {
                "name": card.name,
                "kind": card.kind,
                "context_length": card.context_length,
                "remote": card.capabilities.remote if card.capabilities else False,
                "stats": stats.get(card.name, {}),
            }
            for card in services.models.models()
        ],
    }


def _answer(asset: Asset, request: Request) -> Response:
    headers = {**PAGE_HEADERS, "ETag": asset.etag, "Cache-Control": "no-cache"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)
