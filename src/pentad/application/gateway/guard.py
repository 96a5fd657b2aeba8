"""The guard: every request passes here first, and every answer and error last."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pentad.application.gateway.access_log import AccessLog
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.cors import expose, preflight
from pentad.application.gateway.errors import error_response, internal_error
from pentad.application.gateway.exchange import SCOPE_KEY, Exchange
from pentad.application.gateway.intake import Intake
from pentad.application.gateway.memory import LARGE_BYTES
from pentad.application.gateway.target import to_origin_form
from pentad.errors import Overloaded, PentadError, Unauthorized, Unavailable
from pentad.tracing.context import TRACEPARENT

logger = logging.getLogger("pentad.gateway")

PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics"})
"""Paths that are answered even when the server is full or draining."""

LINGER_S = 1.0
LINGER_BYTES = 8 << 20
"""How long and how much a client that sends too much may go on before the connection is closed."""

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Guard:
    """Checks host, origin and key; holds a place; turns errors into answers; marks every answer."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._access_log = AccessLog(on=gateway.settings.access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        to_origin_form(scope)
        clock = self._gateway.services.clock
        exchange = Exchange.of(scope, clock())
        scope[SCOPE_KEY] = exchange
        if (traced := self._gateway.traced) is not None:
            exchange.trace = traced.enter(Headers(scope=scope).get(TRACEPARENT))
        answer = _Answer(send, scope, exchange, self._gateway)
        try:
            await self._admit(scope, receive, answer, exchange)
        except ClientDisconnect:
            answer.status = 499
        except PentadError as error:
            if error.status >= 500 and not isinstance(error, Unavailable):
                logger.warning("request %s failed: %s", exchange.request_id, error)
            if isinstance(error, Overloaded):
                await self._pace(exchange.tenant)
            await answer.fail(error, receive)
        except MemoryError:
            logger.error("memory ran out while request %s was handled", exchange.request_id)
            await answer.fail(
                Unavailable("memory ran out", retry_after_s=5.0, hint="try again later, or ask for less"),
                receive,
            )
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            await answer.fail(internal_error(exchange.request_id), receive)
        finally:
            self._count(scope, answer.status)
            if answer.intake is not None and answer.intake.size_bytes >= LARGE_BYTES:
                self._gateway.memory.give_back()
            self._access_log.note(
                scope, exchange, status=answer.status, sent_bytes=answer.sent_bytes, now_s=clock()
            )

    async def _admit(self, scope: Scope, receive: Receive, answer: _Answer, exchange: Exchange) -> None:
        headers = Headers(scope=scope)
        access = self._gateway.access
        access.check_host(headers)
        origin = access.cors_origin(headers)
        if origin is not None and scope["method"] == "OPTIONS":
            await preflight(origin, headers)(scope, receive, answer)
            return
        exchange.tenant = access.tenant(headers, scope["path"])
        if scope["path"] in PROBES:
            await self._app(scope, receive, answer)
            return
        async with AsyncExitStack() as held:
            load, most = self._gateway.load, self._gateway.settings.max_body_bytes
            answer.intake = intake = Intake(scope, receive, load, exchange.tenant, held, most)
            intake.begin()
            await self._app(scope, intake, answer)

    async def _pace(self, tenant: str) -> None:
        """Waits until the tenant's next refusal may go out, or the server is on its way out."""
        load = self._gateway.load
        delay_s = 0.0 if load.draining else load.refusals.delay_s(tenant)
        if delay_s > 0:
            await self._gateway.pause(delay_s)

    def _count(self, scope: Scope, status: int) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._gateway.metrics.http.labels(route, _method(scope), str(status)).inc()


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS") else "other"


async def _discard(receive: Receive) -> None:
    """Reads on for a moment: a connection closed on unread bytes is reset, and the answer lost."""
    left = LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while left > 0 and (message := await receive()).get("more_body"):
                left -= len(message["body"])


class _Answer:
    """A `send` that adds our headers once, and remembers how far the answer got."""

    def __init__(self, send: Send, scope: Scope, exchange: Exchange, gateway: Gateway) -> None:
        self._send = send
        self._scope = scope
        self._exchange = exchange
        self._gateway = gateway
        self.status = self.sent_bytes = 0
        self.intake: Intake | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._mark(MutableHeaders(raw=message.setdefault("headers", [])))
        self.sent_bytes += len(message.get("body", b""))
        await self._send(message)

    def _mark(self, headers: MutableHeaders) -> None:
        headers["x-request-id"] = self._exchange.request_id
        if self._exchange.dialect == "anthropic":
            headers["request-id"] = self._exchange.request_id
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        if headers.get("content-type", "").startswith("text/html"):
            headers.setdefault("content-security-policy", PAGE_POLICY)
        headers.setdefault("cache-control", "no-store")
        if self._exchange.ignored:
            headers["x-pentad-ignored"] = self._exchange.ignored_header()
        if self._exchange.notices:
            headers["x-pentad-notice"] = self._exchange.notice_header()
        origin = self._gateway.access.cors_origin(Headers(scope=self._scope))
        if origin is not None:
            expose(headers, origin)
        if self._gateway.load.draining:
            headers["connection"] = "close"

    async def fail(self, error: PentadError, receive: Receive) -> None:
        """Answers with the error, unless the answer has begun: then all that is left is to stop."""
        if self.status:
            return
        headers: dict[str, str] = {}
        if isinstance(error, Unauthorized):
            headers["www-authenticate"] = self._challenge()
        unread = self.intake is not None and not self.intake.complete
        if error.status in (408, 413) or unread:
            headers["connection"] = "close"
        response = error_response(error, self._exchange.dialect, self._exchange.request_id, headers)
        if error.status == 408 or not unread:
            await response(self._scope, receive, self)
            return
        await self({"type": "http.response.start", "status": error.status, "headers": response.raw_headers})
        await self({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
        await _discard(receive)
        await self({"type": "http.response.body", "body": b"", "more_body": False})

    def _challenge(self) -> str:
        """Browsers opening a page may ask their user; programs are told the scheme."""
        page = "text/html" in Headers(scope=self._scope).get("accept", "")
        return 'Basic realm="pentad", charset="UTF-8"' if page else "Bearer"
