"""How an MCP server is reached, and what is taken out of its listings before the SDK reads them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pentad.agent.spec import McpServer
from pentad.errors import InvalidRequest


@dataclass(slots=True)
class Listings:
    """What a server said in its lists of tools that the SDK does not get to see."""

    faults: dict[str, str] = field(default_factory=dict)
    """Tools that are none, with the reason; the others of the list are kept."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """Output schemas. The SDK would compile them and refuse results that do not fit; the model reads
    results as text, whatever their form."""

    refused: bool = False
    """Whether the server's last answer was that somebody must sign in; the SDK does not pass that on."""

    def clean(self, result: dict[str, Any]) -> dict[str, Any]:
        """The result of `tools/list` without them; any other result as it is."""
        tools = result.get("tools")
        if not isinstance(tools, list):
            return result
        kept = []
        for number, tool in enumerate(tools, 1):
            problem = _problem(tool)
            name = tool.get("name") if isinstance(tool, dict) else None
            if problem:
                self.faults[name if isinstance(name, str) and name else f"tool{number}"] = problem
                continue
            self.faults.pop(tool["name"], None)
            self.outputs[tool["name"]] = tool.get("outputSchema")
            kept.append({word: value for word, value in tool.items() if word != "outputSchema"})
        return result | {"tools": kept}


def _problem(tool: Any) -> str:
    """Why an entry of a list is no tool; empty for one that is."""
    from mcp_types import Tool
    from pydantic import ValidationError

    if not isinstance(tool, dict):
        return "it is no object"
    schema = tool.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return "its inputSchema is no schema of type object"
    try:
        Tool.model_validate(tool, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return ""


class _CleanStream:
    """The messages of a transport, with listings cleaned."""

    def __init__(self, inner: Any, listings: Listings) -> None:
        self._inner = inner
        self._listings = listings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def receive(self) -> Any:
        return self._clean(await self._inner.receive())

    def __aiter__(self) -> _CleanStream:
        return self

    async def __anext__(self) -> Any:
        return self._clean(await self._inner.__anext__())

    async def __aenter__(self) -> _CleanStream:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *reason: Any) -> Any:
        return await self._inner.__aexit__(*reason)

    def _clean(self, item: Any) -> Any:
        result = getattr(getattr(item, "message", None), "result", None)
        if isinstance(result, dict):
            item.message.result = self._listings.clean(result)
        return item


@contextlib.asynccontextmanager
async def transport(name: str, server: McpServer, listings: Listings, auth: Any = None) -> AsyncIterator[Any]:
    """The streams to a server: a process of its own, or a URL. What it lists is noted in `listings`.

    Args:
        auth: what signs the requests to a URL.
    """
    async with contextlib.AsyncExitStack() as stack:
        read, write = await stack.enter_async_context(_opened(name, server, listings, auth))
        yield _CleanStream(read, listings), write


@contextlib.asynccontextmanager
async def _opened(name: str, server: McpServer, listings: Listings, auth: Any) -> AsyncIterator[Any]:
    async with contextlib.AsyncExitStack() as stack:
        if server.url is not None:
            yield await stack.enter_async_context(await _over_http(stack, name, server, listings, auth))
            return
        from mcp.client.stdio import StdioServerParameters, stdio_client

        environment = {key: expanded(value) for key, value in server.env.items()}
        parameters = StdioServerParameters(
            command=str(server.command), args=list(server.args), env=environment or None
        )
        # The server's own log lines are kept off our standard error.
        with open(os.devnull, "w", encoding="utf-8") as sink:  # noqa: ASYNC230
            yield await stack.enter_async_context(stdio_client(parameters, errlog=sink))
            await stack.aclose()


async def _over_http(
    stack: contextlib.AsyncExitStack, name: str, server: McpServer, listings: Listings, auth: Any
) -> Any:
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    assert server.url is not None, "asked only for those that have one"
    if not re.match(r"https?://", server.url):
        raise InvalidRequest(f"the url of MCP server {name!r} is not http or https", param="mcpServers")
    headers = {word: expanded(value) for word, value in server.headers.items()}
    client = await stack.enter_async_context(create_mcp_http_client(headers=headers, auth=auth))

    async def note(response: Any) -> None:
        listings.refused = response.status_code == 401

    client.event_hooks["response"] = [*client.event_hooks["response"], note]
    return streamable_http_client(server.url, http_client=client)


def expanded(value: str) -> str:
    """`${NAME}` replaced from our environment. Raises InvalidRequest for a variable that is not set."""

    def found(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise InvalidRequest(f"the environment variable {match[1]!r} is not set", param="mcpServers")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", found, value)
