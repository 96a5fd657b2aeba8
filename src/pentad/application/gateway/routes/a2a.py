"""A2A 1.0: each agent of the server at /a2a/NAME, as JSON-RPC and HTTP+JSON, with its card."""

from __future__ import annotations

import asyncio
import importlib.util
from functools import cached_property
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.application.gateway.body import read_body
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.fetching import Fetcher
from pentad.application.gateway.structure import check_structure
from pentad.errors import NotFound

CARD = "/.well-known/agent-card.json"
_REST = {
    ("POST", "/message:send"): "on_message_send",
    ("POST", "/message:stream"): "on_message_send_stream",
    ("GET", "/tasks"): "list_tasks",
    ("GET", "/tasks/{id}"): "on_get_task",
    ("POST", "/tasks/{id}:cancel"): "on_cancel_task",
    ("GET", "/tasks/{id}:subscribe"): "on_subscribe_to_task",
    ("POST", "/tasks/{id}:subscribe"): "on_subscribe_to_task",
    ("POST", "/tasks/{id}/pushNotificationConfigs"): "set_push_notification",
    ("GET", "/tasks/{id}/pushNotificationConfigs"): "list_push_notifications",
    ("GET", "/tasks/{id}/pushNotificationConfigs/{push_id}"): "get_push_notification",
    ("DELETE", "/tasks/{id}/pushNotificationConfigs/{push_id}"): "delete_push_notification",
    ("GET", "/extendedAgentCard"): "handle_authenticated_agent_card",
}
"""The HTTP+JSON binding: what the SDK's dispatcher calls each."""


class A2aRoutes:
    """The routes. The SDK, an extra, is loaded with the first request."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """Cards, and both bindings of every agent."""
        one = "/a2a/{agent}"
        made = [
            Route(CARD, self.card, methods=["GET"], include_in_schema=False),
            Route(one + CARD, self.card, methods=["GET"], include_in_schema=False),
            Route(one, self._call("handle_requests"), methods=["POST"], include_in_schema=False),
        ]
        # `/tasks/{id}:cancel` before `/tasks/{id}`, which would take it for an id.
        for (method, path), name in sorted(_REST.items(), key=lambda item: ":" not in item[0][1]):
            made.append(Route(one + path, self._call(name), methods=[method], include_in_schema=False))
        return made

    async def card(self, http: HttpRequest) -> Response:
        """The card of an agent; at the root, of the first that there is."""
        _check_installed()
        from a2a.server.request_handlers.response_helpers import agent_card_to_dict

        from pentad.application.protocols.a2a.words import card_of

        spec = await self.agent(http.path_params.get("agent"))
        url = str(http.base_url.replace(path=f"/a2a/{spec.name}"))
        made = card_of(spec, url, keys=bool(self._gateway.settings.keys()))
        return JSONResponse(agent_card_to_dict(made), headers={"cache-control": "no-cache"})

    def _call(self, name: str) -> ASGIApp:
        return _Call(self, name)

    async def answer(self, http: HttpRequest, name: str) -> Response:
        """What the SDK's dispatcher answers, within our limits."""
        gateway = self._gateway
        await self.agent(http.path_params["agent"])
        if http.method == "POST":
            # The SDK finds it where Starlette keeps a body that was read.
            http._body = await read_body(http, gateway.settings)
            check_structure(http._body)
        dispatcher = self._service.rpc if name == "handle_requests" else self._service.rest
        answer: Response = await gateway.plain(http, getattr(dispatcher, name)(http))
        return answer

    @property
    def gateway(self) -> Gateway:
        """The server's."""
        return self._gateway

    async def agent(self, name: str | None) -> AgentSpec:
        """An agent by name, or the first. Raises NotFound."""
        return await asyncio.to_thread(_found, self._runtime, name)

    @property
    def _runtime(self) -> AgentRuntime:
        runtime = self._gateway.services.agents
        if runtime is None:
            raise NotFound("this server runs no agents", hint="start one with pentad serve")
        return runtime

    @cached_property
    def _service(self) -> Any:
        _check_installed()
        from pentad.application.protocols.a2a.service import A2aService

        return A2aService(self._runtime, poster=make_poster(), background=self._gateway.background)


class _Call:
    """One operation of a binding, as an ASGI application that holds a follower's place to its end."""

    def __init__(self, routes: A2aRoutes, name: str) -> None:
        self._routes, self._name = routes, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        load = self._routes.gateway.load
        load.check()
        http = HttpRequest(scope, receive)
        with load.followers.hold(exchange_of(http).tenant):
            answer = await self._routes.answer(http, self._name)
            await answer(scope, receive, send)


def make_poster() -> Fetcher:
    """What calls the URLs that clients give for push notifications: public hosts, at the usual ports."""
    return Fetcher(("*",))


def _found(runtime: AgentRuntime, name: str | None) -> AgentSpec:
    sound = {entry.name: entry.spec for entry in runtime.agents.entries() if entry.spec is not None}
    wanted = name if name is not None else next(iter(sound), "")
    if (spec := sound.get(wanted)) is None:
        raise NotFound(f"no agent {wanted[:100]!r}", hint=f"agents are: {', '.join(sound) or 'none'}")
    return spec


def _check_installed() -> None:
    if importlib.util.find_spec("a2a") is None or importlib.util.find_spec("sse_starlette") is None:
        raise NotFound(
            "this server does not speak A2A", hint='have the operator run pip install "pentad[a2a]"'
        )
