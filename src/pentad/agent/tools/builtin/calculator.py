"""calculator: exact arithmetic, so that the model need not know its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.agent.tools.base import Tool, ToolContext, ToolServices
from pentad.agent.tools.builtin.arithmetic import BadExpression, evaluate
from pentad.errors import ToolFailed


def build(_: ToolServices) -> Tool:
    """The tool. It needs nothing, so any agent can have it."""

    async def call(arguments: Mapping[str, Any], _: ToolContext) -> str:
        try:
            return evaluate(arguments["expression"])
        except BadExpression as error:
            raise ToolFailed(f"cannot compute {arguments['expression'][:80]!r}: {error}") from None

    return Tool(
        name="calculator",
        description="Computes an arithmetic expression exactly. For example 12 * (3 + 4.5) or sqrt(2).",
        parameters={
            "type": "object",
            "properties": {
                "expression": {"type": "string", "description": "Numbers and + - * / ^ ( ), e.g. 23 * 4"}
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
        call=call,
        effects="none",
        timeout_s=5.0,
        example="What is 12 times 9?",
    )
