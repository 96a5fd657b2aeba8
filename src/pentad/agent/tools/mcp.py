"""MCP client: the tools of one server, through the official SDK, as tools like any other."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pentad.agent.codec import dumps
from pentad.agent.spec import McpServer
from pentad.agent.tools.base import InDoubt, Tool, ToolContext
from pentad.agent.tools.logins import Logins, Person, sign_in_needed
from pentad.agent.tools.mcp_results import broken_tool, result_text
from pentad.agent.tools.mcp_transport import Listings, transport
from pentad.agent.tools.pins import ListChange, ToolPins, fingerprint
from pentad.agent.tools.schema import check_schema, harmless, harmless_schema
from pentad.errors import Forbidden, InvalidRequest, PentadError, ToolFailed
from pentad.tracing.context import outgoing

MAX_TOOLS = 256
_MAX_NAME = 64
KEY_META = "io.pentad/idempotency-key"
_CLOSE_S = 10.0
_SIGN_IN_S = 600.0
"""What a person who signs in may take."""
_MAX_REVIEW = 100_000
"""Characters of changed listings that a person is asked about."""
_NEVER_S = 1e9
"""The SDK's own limit of a call; ours stands around it, and pauses while a person is asked."""
_calling: ContextVar[ToolContext | None] = ContextVar("calling", default=None)
"""The call on whose behalf a server asks, where the SDK asks in the call's own task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A server's tools as a person judges them, each by its own name there."""

    server: McpServer
    prints: Mapping[str, str]
    changes: Mapping[str, str]
    """Those that differ from what was accepted: `is new` or `has changed`."""
    descriptions: Mapping[str, str]


class McpConnection:
    """One connection to one server. A task of its own holds it open; calls come from any task.

    Args:
        name: as the agent calls the server; tools are named `name__tool`.
        server: how to reach it.
        pins: tool lists that were accepted, and servers that may be started.
        commands: executables that may be started; others are refused.
        logins: what came of signing in to servers. person: who may sign in now; None lets nobody.
    """

    def __init__(
        self,
        name: str,
        server: McpServer,
        pins: ToolPins,
        commands: Collection[str] = (),
        *,
        logins: Logins | None = None,
        person: Person | None = None,
    ) -> None:
        self.name = name
        self._logins, self._person = logins, person
        self._server = server
        self._pins = pins
        self._commands = commands
        self._client: Any = None
        self._listings = Listings()
        self._change: ListChange | None = None
        self._under_way: list[ToolContext] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """Connects. Raises Forbidden for a command that is not allowed, ToolFailed when it fails."""
        self._check_start()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(ready), name=f"mcp {self.name}")
        try:
            async with asyncio.timeout(self._server.timeout_s if self._person is None else _SIGN_IN_S):
                await asyncio.shield(ready)
        except TimeoutError:
            await self.close()
            raise ToolFailed(
                f"MCP server {self.name!r} gave no answer within {self._server.timeout_s:g} s",
                hint=f"raise mcpServers.{self.name}.timeout_s",
            ) from None

    async def tools(self) -> dict[str, Tool]:
        """The server's tools now, by prefixed name. Changed ones are blocked; see ToolPins."""
        listed = await self._listed()
        prints = self._prints(listed)
        blocked = self._pins.blocked(self._server, prints)
        self._change = self._changed(listed, prints, blocked) if blocked else None
        found: dict[str, Tool] = {}
        for name, tool in listed.items():
            called = self._called(name)
            reason = ""
            if name in blocked:
                reason = f"{called!r} {blocked[name]} since it was approved; pentad agent approve accepts it"
            if called in found:
                reason = f"{called!r} is the name of two tools"
            found[called] = self._tool(called, tool, reason)
        for name, problem in self._listings.faults.items():
            called = self._called(name)
            found.setdefault(called, broken_tool(called, problem))
        return found

    @property
    def change(self) -> ListChange | None:
        """What differed from the accepted tools when they were listed last; None where nothing did."""
        return self._change

    def _changed(
        self, listed: Mapping[str, Any], prints: Mapping[str, str], blocked: Mapping[str, str]
    ) -> ListChange | None:
        """What a person is asked; None for more than anybody would read, which stays blocked unasked."""
        now = {name: prints[name] for name in blocked}
        listings = {
            name: listed[name].model_dump(mode="json", by_alias=True, exclude_none=True) for name in now
        }
        if len(dumps(listings)) > _MAX_REVIEW:
            return None
        said = ", ".join(f"{harmless(name)} {how}" for name, how in blocked.items())
        return ListChange(
            name=self.name,
            server=self._server,
            prints=now,
            listings=listings,
            about=f"MCP server {self.name!r} lists other tools than were accepted: {said}",
            accept=lambda: self._pins.approve(self._server, now),
        )

    def _called(self, name: str) -> str:
        return f"{self.name}__{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:_MAX_NAME]}"

    def _prints(self, listed: Mapping[str, Any]) -> dict[str, str]:
        whole = {
            name: tool.model_copy(update={"output_schema": self._listings.outputs.get(name)})
            for name, tool in listed.items()
        }
        return {name: fingerprint(tool.model_dump(mode="json")) for name, tool in whole.items()}

    async def review(self) -> Review:
        """What the server lists now, for a person to look at; pins nothing."""
        listed = await self._listed()
        prints = self._prints(listed)
        changes = self._pins.changes(self._server, prints)
        return Review(
            server=self._server,
            prints=prints,
            changes=changes,
            descriptions={name: harmless(tool.description or "") for name, tool in listed.items()},
        )

    async def close(self) -> None:
        """Ends the connection, and with it a server process that it started."""
        self._closing.set()
        if self._task is None:
            return
        _, pending = await asyncio.wait([self._task], timeout=_CLOSE_S)
        for task in pending:
            task.cancel()
            await asyncio.wait([task])

    async def _hold(self, ready: asyncio.Future[None]) -> None:
        try:
            async with self._connected() as client:
                self._client = client
                if not ready.done():
                    ready.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(self._unreached(error))
            elif isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._client = None

    def _unreached(self, error: BaseException) -> PentadError:
        cause = _innermost(error)
        if isinstance(cause, PentadError):
            return cause
        if self._listings.refused:
            return sign_in_needed(self.name)
        return ToolFailed(f"MCP server {self.name!r} cannot be reached: {_worded(cause)}")

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        from mcp import Client

        elicited: Any = self._elicited
        client = Client(
            transport(self.name, self._server, self._listings, self._authorization()),
            read_timeout_seconds=self._server.timeout_s,
            elicitation_callback=elicited,
        )
        async with client:
            yield client

    def _authorization(self) -> Any:
        if self._server.url is None or self._logins is None:
            return None
        from pentad.agent.tools.mcp_login import authorization

        return authorization(self._server, self._logins, self._person)

    async def _elicited(self, _: Any, params: Any) -> Any:
        """What the server asks while a call is under way, put to a person."""
        from mcp_types import ElicitResult

        # A server that asks outside the call's task does not say for which; most have one under way.
        context = _calling.get() or (self._under_way[-1] if self._under_way else None)
        if context is None or context.question is None:
            return ElicitResult(action="cancel")
        url = getattr(params, "url", None)
        schema = getattr(params, "requested_schema", None)
        text = harmless(params.message if url is None else f"{params.message}\n{url}")
        reply = await context.question(text, None if schema is None else dict(schema))
        if reply.action != "accept":
            return ElicitResult(action=reply.action)
        return ElicitResult(action="accept", content=_defaults(schema) | dict(reply.content or {}))

    def _check_start(self) -> None:
        if not may_start(self._server, self._commands, self._pins):
            allowed = ", ".join(sorted(self._commands)) or "none"
            raise Forbidden(
                f"MCP server {self.name!r} wants to start {self._server.command!r}; "
                f"allowed commands: {allowed}",
                hint="add it to mcp_commands (--mcp-command), or allow it with pentad agent approve",
            )

    async def _listed(self) -> dict[str, Any]:
        client = self._open_client()
        found: dict[str, Any] = {}
        cursor: str | None = None
        try:
            async with asyncio.timeout(self._server.timeout_s):
                while True:
                    page = await client.list_tools(cursor=cursor, cache_mode="refresh")
                    found |= {tool.name: tool for tool in page.tools}
                    cursor = page.next_cursor
                    if len(found) > MAX_TOOLS:
                        raise ToolFailed(f"MCP server {self.name!r} has more than {MAX_TOOLS} tools")
                    if not cursor:
                        return found
        except TimeoutError:
            raise ToolFailed(f"MCP server {self.name!r} did not list its tools in time") from None
        except ToolFailed:
            raise
        except Exception as error:
            raise ToolFailed(f"MCP server {self.name!r} cannot list its tools: {_worded(error)}") from None

    def _open_client(self) -> Any:
        if self._client is None:
            raise ToolFailed(f"the connection to MCP server {self.name!r} is lost")
        return self._client

    def _tool(self, called: str, tool: Any, reason: str) -> Tool:
        schema = tool.input_schema
        try:
            check_schema(called, schema)
            schema = harmless_schema(called, schema)
        except InvalidRequest as error:
            reason, schema = str(error), {"type": "object", "properties": {}}

        async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
            return await self._call(tool.name, arguments, context)

        return Tool(
            name=called,
            description=harmless(tool.description or ""),
            parameters=schema,
            call=call,
            # A server's own hints are not to be trusted; the user may say which are repeatable.
            effects="none" if tool.name in self._server.repeatable else "unkeyed",
            timeout_s=self._server.timeout_s,
            at_once=self._server.at_once,
            blocked=reason,
        )

    async def _call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> str:
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT
        from pydantic import ValidationError

        client = self._open_client()
        token = _calling.set(context)
        self._under_way.append(context)
        try:
            result = await client.call_tool(
                name,
                dict(arguments),
                meta={KEY_META: context.key, **outgoing()},
                read_timeout_seconds=_NEVER_S,
            )
        except MCPError as error:
            # Sent, but the answer will not come: it may have happened.
            kind = InDoubt if error.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT) else ToolFailed
            raise kind(f"MCP server {self.name!r}: {str(error)[:500]}") from None
        except (OSError, RuntimeError) as error:
            raise InDoubt(f"MCP server {self.name!r} was lost during the call: {error}") from None
        except ValidationError:
            raise InDoubt(f"MCP server {self.name!r} answered in no form that MCP knows") from None
        finally:
            self._under_way.remove(context)
            _calling.reset(token)
        text = result_text(result)
        if result.is_error:
            raise ToolFailed(text[:2000] or f"{name} failed and did not say why")
        return text


def may_start(server: McpServer, commands: Collection[str], pins: ToolPins) -> bool:
    """Whether a connection to the server starts nothing that was not allowed."""
    return server.command is None or server.command in commands or pins.may_start(server)


def _defaults(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a form says where nobody said otherwise."""
    fields = (schema or {}).get("properties", {})
    return {name: field["default"] for name, field in fields.items() if "default" in field}


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _worded(error: BaseException) -> str:
    inner = _innermost(error)
    return f"{type(inner).__name__}: {str(inner)[:200]}" if str(inner) else type(inner).__name__
