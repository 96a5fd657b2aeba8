"""Request targets in absolute form, `GET http://host/path`, as proxies and some clients send them."""

from __future__ import annotations

import re

from starlette.types import Scope

_ABSOLUTE = re.compile(r"^https?://(?P<authority>[^/?#]*)(?P<path>/.*)?$", re.IGNORECASE | re.DOTALL)


def to_origin_form(scope: Scope) -> None:
    """Makes the target of an HTTP request a path, and its authority the Host (RFC 9112, section 3.2.2).

    The Host header that came along counts no more, so who is named in the target is checked as
    if it stood there.
    """
    match = _ABSOLUTE.match(scope["path"])
    if match is None:
        return
    scope["path"] = match["path"] or "/"
    raw = _ABSOLUTE.match(scope.get("raw_path", b"").decode("latin-1"))
    scope["raw_path"] = scope["path"].encode() if raw is None else (raw["path"] or "/").encode("latin-1")
    others = [(name, value) for name, value in scope["headers"] if name.lower() != b"host"]
    scope["headers"] = [*others, (b"host", match["authority"].encode("latin-1", "replace"))]
