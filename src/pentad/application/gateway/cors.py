"""CORS: what a web page from an allowed origin may send and read."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

MAX_ASKED_CHARS = 4096
_NAMES = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*$")
_READABLE = frozenset({"request-id", "retry-after", "www-authenticate", "location"})
"""Headers beside `x-...` that programs look at and browsers hide unless they are named."""


def preflight(origin: str, headers: Headers) -> Response:
    """The answer to a browser's question whether the page may call.

    An origin is named in the settings because it is trusted, so it may send whatever headers its
    client library has (`x-stainless-*`, `anthropic-*`, `openai-*`, `x-pentad-*`, tracing ...).
    """
    asked = headers.get("access-control-request-headers", "")
    allowed = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-max-age": "600",
        "vary": "access-control-request-headers",
    }
    if len(asked) <= MAX_ASKED_CHARS and _NAMES.match(asked):
        allowed["access-control-allow-headers"] = asked
    if headers.get("access-control-request-private-network") == "true":
        allowed["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=allowed)


def expose(answer: MutableHeaders, origin: str) -> None:
    """Lets the page read the answer and those of its headers that programs look at."""
    names = sorted({name for name in answer if name.startswith("x-") or name in _READABLE})
    answer["access-control-allow-origin"] = origin
    answer["access-control-expose-headers"] = ", ".join(names)
    answer.add_vary_header("origin")
