"""What the MCP conformance suite starts as the client: our connection, whose person accepts what is asked.

It lists the tools of the server whose URL is the last argument, and calls each with simple arguments. Where
the server wants OAuth, a person signs in whose browser follows every redirect.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.shared.auth import AuthorizationCodeResult

from pentad.agent.spec import McpOAuth, McpServer
from pentad.agent.tools.base import Reply, ToolContext
from pentad.agent.tools.invocation import call, parse
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.mcp import McpConnection
from pentad.agent.tools.pins import ToolPins

DOCUMENT = "https://conformance-test.local/client-metadata.json"
"""The client metadata document that the suite knows."""


class Browser:
    """A browser whose person allows everything."""

    redirect_uri = "http://localhost:3000/callback"

    def __init__(self) -> None:
        self._came_back = ""

    async def show(self, url: str) -> None:
        async with httpx2.AsyncClient() as http:
            answer = await http.get(url, follow_redirects=False)
        self._came_back = answer.headers["location"]

    async def result(self) -> AuthorizationCodeResult:
        said = {word: values[0] for word, values in parse_qs(urlsplit(self._came_back).query).items()}
        return AuthorizationCodeResult(**{word: said.get(word) for word in ("code", "state", "iss")})


async def accept(_: str, __: Mapping[str, Any] | None) -> Reply:
    """A person who sends every form as it is."""
    return Reply(action="accept", content={})


def oauth(given: Mapping[str, Any]) -> McpOAuth:
    """What an agent's file would say, from what the suite tells of its scenario."""
    if not given.get("client_id"):
        return McpOAuth(client_id=DOCUMENT)
    if given.get("client_secret"):
        os.environ["SUITE_SECRET"] = given["client_secret"]
    secret = "${SUITE_SECRET}" if given.get("client_secret") else ""
    return McpOAuth(client_id=given["client_id"], client_secret=secret)


async def main(url: str) -> None:
    given = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    server = McpServer(url=url, timeout_s=20, oauth=oauth(given))
    connection = McpConnection("suite", server, ToolPins(), logins=Logins(), person=Browser())
    await connection.open()
    try:
        for name, tool in (await connection.tools()).items():
            names = tool.parameters.get("properties", {})
            arguments = {word: number for number, word in enumerate(names, 2)}
            context = ToolContext(
                key=f"suite:{name}",
                run_id="suite",
                tenant="default",
                agent="suite",
                deadline_s=time.monotonic() + 20,
                question=accept,
            )
            outcome = await call(tool, parse(tool, json.dumps(arguments)), context)
            print(name, outcome.status, outcome.content[:200])
    finally:
        await connection.close()


asyncio.run(main(sys.argv[-1]))
