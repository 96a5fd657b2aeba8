"""translation: text into another language, by the run's own model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Example, Tool, ToolContext, ToolServices
from pentad.errors import ToolFailed


def build(_: ToolServices, *, max_tokens: int = 256) -> Tool:
    """The tool. How well it translates is up to the model.

    Args:
        max_tokens: of the translation.
    """

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        if context.ask is None:
            raise ToolFailed("translation needs a model")
        system = f"Translate the text into {arguments['language']}. Answer with the translation only."
        return await context.ask(system, arguments["text"], max_tokens)

    return Tool(
        name="translation",
        description="Translates a text into another language.",
        parameters={
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "language": {"type": "string", "description": "Target language, e.g. English"},
            },
            "required": ["text", "language"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        timeout_s=120.0,
        examples=(
            Example(
                task="Translate 'good morning' into French",
                arguments={"text": "good morning", "language": "French"},
            ),
        ),
    )
