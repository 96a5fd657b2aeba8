"""MCP: the server's agents as tools, over Streamable HTTP at /mcp."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import SCOPE_KEY
from pentad.errors import NotFound

PATH = "/mcp"
_SESSIONS = 1024
"""Open at once, of all tenants; further ones are answered 503."""


class McpRoute:
    """An ASGI application: the SDK's sessions behind our guard, each of the tenant that opened it.

    Each request under way counts as a follower of a run. Loaded with the first request.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._manager: Any = None
        self._opening = asyncio.Lock()

    def routes(self) -> list[Route]:
        """One path for all methods of the protocol."""
        return [Route(PATH, self, methods=["GET", "POST", "DELETE"], include_in_schema=False)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request of the protocol."""
        self._gateway.load.check()
        tenant = scope[SCOPE_KEY].tenant
        with self._gateway.load.followers.hold(tenant):
            manager = await self._sessions()
            await manager.handle_request({**scope, "user": _principal(tenant)}, receive, send)

    async def _sessions(self) -> Any:
        """The SDK's session manager, held open by a task of its own until the server ends."""
        async with self._opening:
            if self._manager is None:
                self._manager = self._made()
                opened = asyncio.Event()
                self._gateway.background(_hold(self._manager, opened))
                await opened.wait()
        return self._manager

    def _made(self) -> Any:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from pentad.application.protocols.mcp_server import AgentTools

        runtime = self._gateway.services.agents
        if runtime is None:
            raise NotFound("this server runs no agents", hint="start one with pentad serve")
        load = self._gateway.load
        tools = AgentTools(runtime, tenant_of=_tenant, stopping=lambda: load.draining)
        return StreamableHTTPSessionManager(
            tools.server(),
            max_request_body_size=self._gateway.settings.max_body_bytes,
            max_sessions=_SESSIONS,
        )


async def _hold(manager: Any, opened: asyncio.Event) -> None:
    async with manager.run():
        opened.set()
        await asyncio.Event().wait()


def _principal(tenant: str) -> Any:
    """Who opens a session, as the SDK compares it: another tenant's key does not find the session."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    return AuthenticatedUser(AccessToken(token="", client_id=tenant, scopes=[]))


def _tenant(context: Any) -> str:
    tenant: str = context.request.scope[SCOPE_KEY].tenant
    return tenant
