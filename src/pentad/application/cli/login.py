"""Signing in to the MCP servers of an agent: a page in the browser, and what came of it kept."""

from __future__ import annotations

import asyncio
import sys
import webbrowser
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

from pentad.agent.spec import AgentSpec, McpServer
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.mcp import McpConnection
from pentad.agent.tools.pins import ToolPins
from pentad.application.cli.approving import servers_of
from pentad.application.cli.output import note, plain
from pentad.application.config import Settings
from pentad.errors import Conflict, Forbidden, InvalidRequest, UnknownName

if TYPE_CHECKING:
    from mcp.shared.auth import AuthorizationCodeResult

_MAX_LINE = 16_384
_PAGE = "<!doctype html><title>Pentad</title><p>You may close this page and go back to the terminal."


class Terminal:
    """A person at a terminal, with a browser on the same machine: the way back leads to a port of ours.

    Args:
        port: of the loopback address.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.redirect_uri = f"http://127.0.0.1:{port}/callback"
        self._back: asyncio.Future[Mapping[str, list[str]]] = asyncio.get_running_loop().create_future()
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        try:
            self._listener = await asyncio.start_server(
                self._answer, "127.0.0.1", self._port, limit=_MAX_LINE
            )
        except OSError as error:
            raise Conflict(
                f"port {self._port} cannot be listened on: {error.strerror}", hint="choose another --port"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()

    async def show(self, url: str) -> None:
        """Shows the page to sign in at, and opens it where somebody sits at the terminal.

        Raises Forbidden for an address that is neither https nor on this machine.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" and (parts.scheme, parts.hostname) not in _LOCAL:
            raise Forbidden(f"the authorization server wants you at {plain(url)[:200]!r}, which is not https")
        note(f"sign in at {plain(url)}")
        if sys.stdin.isatty():
            await asyncio.to_thread(webbrowser.open, url)

    async def result(self) -> AuthorizationCodeResult:
        """What the browser came back with."""
        from mcp.shared.auth import AuthorizationCodeResult

        said = await self._back
        if "error" in said:
            raise Forbidden(f"the authorization server says: {plain(said['error'][0])[:200]}")
        first = {word: said[word][0] for word in ("code", "state", "iss") if word in said}
        return AuthorizationCodeResult(
            code=first.get("code", ""), state=first.get("state"), iss=first.get("iss")
        )

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                method, target = (await reader.readline()).decode("latin-1").split()[:2]
            path = urlsplit(target)
            ours = method == "GET" and path.path == "/callback"
            if ours and not self._back.done():
                self._back.set_result(parse_qs(path.query))
            body = _PAGE if ours else "not found"
            head = f"HTTP/1.1 {'200 OK' if ours else '404 Not Found'}\r\ncontent-type: text/html\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())
            await writer.drain()
        except (ValueError, OSError, TimeoutError):
            pass  # no browser of ours; the person can try again
        finally:
            writer.close()


_LOCAL = (("http", "127.0.0.1"), ("http", "localhost"))


async def sign_in(settings: Settings, spec: AgentSpec, only: str | None, *, port: int) -> list[str]:
    """Signs in to each server of the agent that has a URL, or to the one; their names.

    Raises UnknownName for a server that the agent does not have; InvalidRequest where it has none with a URL.
    """
    logins, pins = Logins(settings.logins_path), ToolPins(settings.approvals_path)
    done = []
    for name, server in _wanted(spec, only).items():
        async with Terminal(port) as person:
            connection = McpConnection(name, server, pins, logins=logins, person=person)
            await connection.open()
            await connection.close()
        done.append(name)
    return done


def forget(settings: Settings, spec: AgentSpec, only: str | None) -> list[str]:
    """Forgets what came of signing in; the servers that somebody had signed in to. Raises as `sign_in`."""
    logins = Logins(settings.logins_path)
    return [name for name, server in _wanted(spec, only).items() if logins.forget(server)]


def _wanted(spec: AgentSpec, only: str | None) -> dict[str, McpServer]:
    found = {name: server for name, server in servers_of(spec) if server.url is not None}
    if only is not None and only not in found:
        raise UnknownName(
            f"agent {spec.name!r} has no MCP server {only!r} with a url",
            hint=f"it has: {', '.join(found) or 'none'}",
        )
    if not found:
        raise InvalidRequest(
            f"agent {spec.name!r} has no MCP servers with a url; there is nothing to sign in to"
        )
    return found if only is None else {only: found[only]}
