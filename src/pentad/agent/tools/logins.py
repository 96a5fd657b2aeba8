"""Logins: what came of signing in to MCP servers, and who may sign in."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Protocol

from pentad.agent.spec import McpServer
from pentad.agent.tools.kept_json import KeptJson
from pentad.agent.tools.pins import identity
from pentad.errors import Forbidden

if TYPE_CHECKING:
    from mcp.shared.auth import AuthorizationCodeResult


class Person(Protocol):
    """Somebody with a browser who can sign in."""

    @property
    def redirect_uri(self) -> str:
        """Where the authorization server sends the browser afterwards."""
        ...

    async def show(self, url: str) -> None:
        """Opens the page of the authorization server."""
        ...

    async def result(self) -> AuthorizationCodeResult:
        """What the browser came back with."""
        ...


class Logins:
    """Tokens and client registrations by server, in a JSON file that its owner alone may read.

    Args:
        path: the file; None keeps them for this process only.
    """

    def __init__(self, path: pathlib.Path | None = None) -> None:
        self.kept = KeptJson(
            path, what="the sign-ins", hint="delete the file and sign in anew: pentad agent login"
        )

    def known(self, server: McpServer) -> bool:
        """Whether somebody signed in to the server."""
        return "tokens" in (self.kept.section(identity(server)) or {})

    def forget(self, server: McpServer) -> bool:
        """Forgets tokens and registration; whether there were any."""
        return self.kept.drop(identity(server))


def sign_in_needed(name: str) -> Forbidden:
    """The refusal of a server that wants to know who calls."""
    return Forbidden(
        f"MCP server {name!r} wants somebody to sign in",
        hint="sign in with pentad agent login, or give it a key by mcpServers headers",
    )
