"""What MCP servers say, in our terms: results as text, and tools that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.schema import harmless
from pentad.errors import ToolFailed


def broken_tool(called: str, problem: str) -> Tool:
    """A tool that its server lists in no usable form: shown as such, never called."""

    async def call(_: Mapping[str, Any], __: ToolContext) -> str:
        raise ToolFailed(f"{called!r} cannot be called: {problem}")

    nothing = {"type": "object", "properties": {}}
    reason = f"{called!r} cannot be used: {harmless(problem)}"
    return Tool(name=called, description="", parameters=nothing, call=call, blocked=reason)


def result_text(result: Any) -> str:
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
