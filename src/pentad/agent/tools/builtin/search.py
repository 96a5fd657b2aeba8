"""search: passages from a folder of documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices
from pentad.agent.tools.documents import Documents, folder_option


def build(services: ToolServices, *, folder: str = "", k: int = 3) -> Tool:
    """The tool over one folder.

    Args:
        folder: of .txt, .md and .rst files.
        k: passages per search.
    """
    documents = Documents(folder_option(folder, "search"), services.models)

    async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
        found = await documents.search(arguments["query"], k)
        return "\n\n".join(f"[{p.source}] {p.text}" for p in found) or "Nothing was found."

    return Tool(
        name="search",
        description="Searches the documents and returns the passages that fit best.",
        parameters={
            "type": "object",
            "properties": {"query": {"type": "string", "description": "Words or a question"}},
            "required": ["query"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        examples=(Example(task="Find the opening hours", arguments={"query": "opening hours"}),),
    )
