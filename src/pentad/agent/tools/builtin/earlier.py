"""earlier: a turn of this run's conversation that left the prompt, whole again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices
from pentad.errors import InvalidRequest


def build(_: ToolServices) -> Tool:
    """The tool that shows a turn by the id that the prompt tells; for agents with `context: tiered`."""

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        turns = context.left_turns
        ident = arguments["id"].strip(" []")
        if ident not in turns:
            ids = f"{next(iter(turns))} to t{len(turns)}" if turns else "none"
            raise InvalidRequest(f"no earlier turn {ident!r:.40}", hint=f"turns that left: {ids}", param="id")
        return turns[ident]

    return Tool(
        name="earlier",
        description="Shows an earlier turn of the conversation whole, by the id that stands before it.",
        parameters={
            "type": "object",
            "properties": {"id": {"type": "string", "description": "as in [t3]"}},
            "required": ["id"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        examples=(Example(task="What did I say about the boat in [t3]?", arguments={"id": "t3"}),),
    )
