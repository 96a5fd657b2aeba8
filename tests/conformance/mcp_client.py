"""What the MCP conformance suite starts as the client: our connection, whose person accepts what is asked.

It lists the tools of the server whose URL is the last argument, and calls each with simple arguments.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from pentad.agent.spec import McpServer
from pentad.agent.tools.base import Reply, ToolContext
from pentad.agent.tools.invocation import call, parse
from pentad.agent.tools.mcp import McpConnection
from pentad.agent.tools.pins import ToolPins


async def accept(_: str, __: Mapping[str, Any] | None) -> Reply:
    """A person who sends every form as it is."""
    return Reply(action="accept", content={})


async def main(url: str) -> None:
    connection = McpConnection("suite", McpServer(url=url, timeout_s=20), ToolPins())
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
