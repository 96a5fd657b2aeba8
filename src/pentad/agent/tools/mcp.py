"""MCP client: the tools of one server, through the official SDK, as tools like any other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import unicodedata
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.agent.spec import McpServer
from pentad.agent.tools.base import InDoubt, Tool, ToolContext
from pentad.agent.tools.pins import ToolPins, fingerprint
from pentad.agent.tools.schema import check_schema
from pentad.errors import Forbidden, InvalidRequest, ToolFailed

MAX_TOOLS = 256
MAX_DESCRIPTION = 1024
KEY_META = "io.pentad/idempotency-key"
_CLOSE_S = 10.0


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
    """

    def __init__(self, name: str, server: McpServer, pins: ToolPins, commands: Collection[str] = ()) -> None:
        self.name = name
        self._server = server
        self._pins = pins
        self._commands = commands
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """Connects. Raises Forbidden for a command that is not allowed, ToolFailed when it fails."""
        target = self._target()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(target, ready), name=f"mcp {self.name}")
        try:
            async with asyncio.timeout(self._server.timeout_s):
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
        prints = {name: fingerprint(tool.model_dump(mode="json")) for name, tool in listed.items()}
        blocked = self._pins.blocked(self._server, prints)
        found: dict[str, Tool] = {}
        for name, tool in listed.items():
            called = f"{self.name}__{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"
            reason = f"{called!r} {blocked[name]} since it was approved" if name in blocked else ""
            if called in found:
                reason = f"{called!r} is the name of two tools"
            found[called] = self._tool(called, tool, reason)
        return found

    async def review(self) -> Review:
        """What the server lists now, for a person to look at; pins nothing."""
        listed = await self._listed()
        prints = {name: fingerprint(tool.model_dump(mode="json")) for name, tool in listed.items()}
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

    async def _hold(self, target: Any, ready: asyncio.Future[None]) -> None:
        try:
            async with _connected(target, self._server) as client:
                self._client = client
                if not ready.done():
                    ready.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            if not ready.done():
                cause = _innermost(error)
                ready.set_exception(ToolFailed(f"MCP server {self.name!r} cannot be reached: {cause}"))
            elif isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._client = None

    def _target(self) -> Any:
        server = self._server
        if not may_start(server, self._commands, self._pins):
            allowed = ", ".join(sorted(self._commands)) or "none"
            raise Forbidden(
                f"MCP server {self.name!r} wants to start {server.command!r}; allowed commands: {allowed}",
                hint="add it to mcp_commands (--mcp-command), or allow it with pentad agent approve",
            )
        return _target(self.name, server)

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
            raise ToolFailed(f"MCP server {self.name!r} cannot list its tools: {_innermost(error)}") from None

    def _open_client(self) -> Any:
        if self._client is None:
            raise ToolFailed(f"the connection to MCP server {self.name!r} is lost")
        return self._client

    def _tool(self, called: str, tool: Any, reason: str) -> Tool:
        schema = tool.input_schema
        try:
            check_schema(called, schema)
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
            blocked=reason,
        )

    async def _call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> str:
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        client = self._open_client()
        try:
            result = await client.call_tool(name, dict(arguments), meta={KEY_META: context.key})
        except MCPError as error:
            # Sent, but the answer will not come: it may have happened.
            kind = InDoubt if error.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT) else ToolFailed
            raise kind(f"MCP server {self.name!r}: {str(error)[:500]}") from None
        except (OSError, RuntimeError) as error:
            raise InDoubt(f"MCP server {self.name!r} was lost during the call: {error}") from None
        text = _text(result)
        if result.is_error:
            raise ToolFailed(text[:2000] or f"{name} failed and did not say why")
        return text


def may_start(server: McpServer, commands: Collection[str], pins: ToolPins) -> bool:
    """Whether a connection to the server starts nothing that was not allowed."""
    return server.command is None or server.command in commands or pins.may_start(server)


@contextlib.asynccontextmanager
async def _connected(target: Any, server: McpServer) -> AsyncIterator[Any]:
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    async with contextlib.AsyncExitStack() as stack:
        if isinstance(target, str):
            headers = {name: expanded(value) for name, value in server.headers.items()}
            http = await stack.enter_async_context(create_mcp_http_client(headers=headers))
            target = streamable_http_client(target, http_client=http)
        yield await stack.enter_async_context(Client(target, read_timeout_seconds=server.timeout_s))


def _target(name: str, server: McpServer) -> Any:
    if server.url is not None:
        if not re.match(r"https?://", server.url):
            raise InvalidRequest(f"the url of MCP server {name!r} is not http or https", param="mcpServers")
        return server.url
    from mcp.client.stdio import StdioServerParameters, stdio_client

    environment = {key: expanded(value) for key, value in server.env.items()}
    parameters = StdioServerParameters(
        command=str(server.command), args=list(server.args), env=environment or None
    )
    return _quiet(stdio_client, parameters)


@contextlib.asynccontextmanager
async def _quiet(stdio_client: Any, parameters: Any) -> AsyncIterator[Any]:
    """The stdio transport with the server's own log lines kept off our standard error."""
    with open(os.devnull, "w", encoding="utf-8") as sink:  # noqa: ASYNC230
        async with stdio_client(parameters, errlog=sink) as streams:
            yield streams


def expanded(value: str) -> str:
    """`${NAME}` replaced from our environment. Raises InvalidRequest for a variable that is not set."""

    def found(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise InvalidRequest(f"the environment variable {match[1]!r} is not set", param="mcpServers")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", found, value)


def harmless(text: str) -> str:
    """A description without invisible characters, which can hide instructions, and of bounded length."""
    kept = "".join(
        c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cn", "Cs")
    )
    return kept if len(kept) <= MAX_DESCRIPTION else f"{kept[:MAX_DESCRIPTION]} [cut]"


def _text(result: Any) -> str:
    """All content of a result as text; what is no text is named with its type and size."""
    parts = []
    for block in result.content:
        match block.type:
            case "text":
                parts.append(block.text)
            case "image" | "audio":
                parts.append(f"[{block.type} {block.mime_type}, {len(block.data)} base64 characters]")
            case "resource":
                inner = getattr(block.resource, "text", None)
                parts.append(inner if inner is not None else f"[resource {block.resource.uri}]")
            case _:
                parts.append(f"[{block.type} {getattr(block, 'uri', '')}]")
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(parts)


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__
