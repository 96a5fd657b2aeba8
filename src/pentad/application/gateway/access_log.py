"""The access log: one line per answered request, who and what and how long, never its content."""

from __future__ import annotations

import logging
import re

from starlette.types import Scope

from pentad.application.gateway.exchange import Exchange

_log = logging.getLogger("pentad.access")
_MOST_PATH = 200


class AccessLog:
    """Writes at level info under `pentad.access`, whatever the level of the rest; or nothing when off."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        if on:
            _log.setLevel(logging.INFO)

    def note(self, scope: Scope, exchange: Exchange, *, status: int, sent_bytes: int, now_s: float) -> None:
        """One line once the answer is over. Queries, headers and bodies are left out."""
        if not self._on:
            return
        client = scope.get("client")
        _log.info(
            "%s tenant=%s %s %s %d bytes=%d s=%.3f id=%s",
            client[0] if client else "-",
            exchange.tenant,
            _plain(scope["method"])[:10],
            _plain(scope["path"])[:_MOST_PATH],
            status,
            sent_bytes,
            now_s - exchange.arrived_s,
            exchange.request_id,
        )


def _plain(text: str) -> str:
    """One word without control characters, so that a request cannot write lines of its own."""
    return re.sub(r"[^!-~]", "?", text)
