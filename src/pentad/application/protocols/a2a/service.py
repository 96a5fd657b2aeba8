"""A2aService: the SDK's dispatchers over our handler, for all agents of one server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.routes.rest_dispatcher import RestDispatcher
from starlette.requests import Request

from pentad.agent.runtime import AgentRuntime
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.fetching import Fetcher
from pentad.application.protocols.a2a.handler import RunHandler
from pentad.application.protocols.a2a.pushing import Pushing
from pentad.application.protocols.task_tables import TaskTables


class A2aService:
    """JSON-RPC and HTTP+JSON over one handler.

    Args:
        runtime: runs the agents. poster: calls push notification URLs.
        background: runs a coroutine beside the requests.
    """

    def __init__(
        self,
        runtime: AgentRuntime,
        *,
        poster: Fetcher,
        background: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        tables = TaskTables(runtime.journal_store)
        self.pushing = Pushing(runtime, tables, poster, background)
        handler = RunHandler(runtime, tables, self.pushing)
        self.rpc = JsonRpcDispatcher(handler, context_builder=_Contexts())
        self.rest = RestDispatcher(handler, context_builder=_Contexts())
        self.pushing.resume()


class _Contexts(ServerCallContextBuilder):
    """Which agent is called, and by whom."""

    def build(self, request: Request) -> ServerCallContext:
        state = {
            "agent": request.path_params["agent"],
            "caller": exchange_of(request).tenant,
            "headers": dict(request.headers),
        }
        return ServerCallContext(state=state)
