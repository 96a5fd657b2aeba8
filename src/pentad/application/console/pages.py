"""Routes of the console: one page under every address that it can show, and its files.

The page and its files hold no data and run no inline script, so they are answered without a key;
what the page shows comes from the public API with the visitor's own key. Every file is read and
compressed once, and served from memory with an ETag.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

PAGE = "index.html"
ADDRESSES = (
    "/console",
    "/console/chat",
    "/console/chat/{id}",
    "/console/runs",
    "/console/runs/{id}",
    "/console/engine",
)
"""What a person may bookmark; the page reads its own address and shows it."""
FILES = "/console/static/{name:path}"
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file of the page, ready to be sent."""

    body: bytes
    packed: bytes
    """The body, gzipped."""
    media_type: str
    etag: str


def is_page(path: str) -> bool:
    """Whether the path is the console's own, answered without a key so that the page can ask for one."""
    return path in ("/", "/console") or path.startswith("/console/")


def load_assets() -> Mapping[str, Asset]:
    """The files of the page by their path below `static`."""
    return MappingProxyType(dict(_assets(importlib.resources.files(__package__) / "static", "")))


def _assets(folder: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for file in folder.iterdir():
        name = prefix + file.name
        if file.is_dir():
            yield from _assets(file, f"{name}/")
        elif media_type := MEDIA_TYPES.get(name.rpartition(".")[2]):
            body = file.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            packed = gzip.compress(body, mtime=0)
            yield name, Asset(body=body, packed=packed, media_type=media_type, etag=etag)


def routes() -> list[Route]:
    """`/` (to the console), the addresses of the page, and its files."""
    assets = load_assets()

    async def home(_: Request) -> Response:
        return RedirectResponse("/console", status_code=307)

    async def page(request: Request) -> Response:
        return _answer(assets[PAGE], request)

    async def static(request: Request) -> Response:
        asset = assets.get(request.path_params["name"])
        return Response(status_code=404) if asset is None else _answer(asset, request)

    return [
        Route("/", home, include_in_schema=False),
        *(Route(address, page, include_in_schema=False) for address in ADDRESSES),
        Route(FILES, static, include_in_schema=False),
    ]


def _answer(asset: Asset, request: Request) -> Response:
    headers = {**PAGE_HEADERS, "ETag": asset.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = asset.packed, "gzip"
    return Response(body, media_type=asset.media_type, headers=headers)
