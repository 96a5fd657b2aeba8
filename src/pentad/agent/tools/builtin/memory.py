"""remember and recall: long-term memory in the model's own hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.memory.base import Item, Memory, Scope
from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices
from pentad.errors import InvalidRequest


def build_remember(services: ToolServices) -> Tool:
    """The tool that keeps something. The call's key is the item's id, so it is kept once."""
    memory = _memory(services, "remember")

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        item = Item(
            id=context.key,
            text=arguments["text"],
            kind=arguments.get("kind", "fact"),
            source=context.run_id,
            importance=0.8,
        )
        await memory.write(item, Scope(tenant=context.tenant, agent=context.agent))
        return "remembered"

    return Tool(
        name="remember",
        description="Keeps a fact or a preference of the user for later conversations.",
        parameters={
            "type": "object",
            "properties": {
                "text": {"type": "string", "minLength": 1},
                "kind": {"enum": ["fact", "preference"]},
            },
            "required": ["text"],
            "additionalProperties": False,
        },
        call=call,
        effects="keyed",
        examples=(Example(task="Remember that I like tea", arguments={"text": "The user likes tea"}),),
    )


def build_recall(services: ToolServices, *, k: int = 4) -> Tool:
    """The tool that looks something up.

    Args:
        k: items per look-up.
    """
    memory = _memory(services, "recall")

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        scope = Scope(tenant=context.tenant, agent=context.agent)
        found = await memory.query(arguments["about"], k=k, scope=scope)
        return "\n".join(f"- {r.item.text}" for r in found) or "Nothing is remembered about it."

    return Tool(
        name="recall",
        description="Looks up what was remembered in earlier conversations.",
        parameters={
            "type": "object",
            "properties": {"about": {"type": "string"}},
            "required": ["about"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        examples=(Example(task="What does the user drink?", arguments={"about": "what the user drinks"}),),
    )


def _memory(services: ToolServices, tool: str) -> Memory:
    if services.memory is None:
        raise InvalidRequest(
            f"tool {tool!r} needs long-term memory, which is off",
            hint="set embedding_model to a served model, or the agent's memory.store to buffer",
            param="tools",
        )
    return services.memory
